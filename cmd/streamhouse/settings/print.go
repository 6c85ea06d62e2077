package settings

import (
	"fmt"
	"io"
	"strings"
)

// secret names the settings whose values are not shown.
var secret = map[string]bool{"agent-token": true, "admin-token": true}

// Print writes the settings of the groups as a configuration file: those that
// were given, and as comments those that were not. Secrets are left out.
func (s Settings) Print(w io.Writer, groups ...Group) error {
	for _, g := range groups {
		for _, row := range table {
			if row.group != g {
				continue
			}
			line := fmt.Sprintf("# %s: %s", row.name, row.usage)
			if value, given := s.given[row.name]; given {
				line = fmt.Sprintf("%s: %q", row.name, shownValue(row.name, fmt.Sprint(value)))
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// shownValue hides what must not be seen: tokens, and the passwords of URLs.
func shownValue(name, value string) string {
	if secret[name] {
		return "(not shown)"
	}
	scheme, rest, isURL := strings.Cut(value, "://")
	if !isURL {
		return value
	}
	user, host, hasUser := cutLast(rest, "@")
	if hasUser {
		name, _, _ := strings.Cut(user, ":")
		rest = name + ":(not shown)@" + host
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if !hasQuery {
		return scheme + "://" + rest
	}
	parameters := strings.Split(query, "&")
	for i, p := range parameters {
		if key, _, _ := strings.Cut(p, "="); strings.Contains(strings.ToLower(key), "password") || strings.Contains(strings.ToLower(key), "secret") {
			parameters[i] = key + "=(not shown)"
		}
	}
	return scheme + "://" + path + "?" + strings.Join(parameters, "&")
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}
