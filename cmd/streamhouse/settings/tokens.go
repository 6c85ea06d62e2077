package settings

import (
	"errors"
	"fmt"
	"os"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/streamhouse/streamhouse/adapters/grpc"
	"github.com/streamhouse/streamhouse/domain"
)

// maxTokensFile is the largest file of tokens that is read, in bytes.
const maxTokensFile = 1 << 20

// LoadTokens reads a file of bearer tokens:
//
//	tokens:
//	  - name: billing
//	    token: at least 16 bytes
//	    scopes: [read, write]
//	    topics: [billing-]
//
// Topics are prefixes of names; "" allows all. Errors never quote a token.
func LoadTokens(path string) (*grpc.Tokens, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxTokensFile {
		err = fmt.Errorf("%s: %d bytes, want at most %d", path, info.Size(), maxTokensFile)
	}
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parsed, err := yaml.Parser().Unmarshal(b)
	if err != nil {
		return nil, fmt.Errorf("%s: not a YAML file of tokens", path) // what the parser says quotes lines
	}
	list, ok := parsed["tokens"].([]any)
	if !ok || len(parsed) != 1 {
		return nil, &domain.ConfigError{Field: path, Want: "one key, tokens, with a list"}
	}
	tokens := make(map[string]grpc.Principal, len(list))
	var errs []error
	for i, entry := range list {
		token, who, err := tokenEntry(entry)
		if _, twice := tokens[token]; twice && err == nil {
			err = errors.New("its token is another's too")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: entry %d: %w", path, i+1, err))
			continue
		}
		tokens[token] = who
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return grpc.NewTokens(tokens)
}

func tokenEntry(entry any) (token string, who grpc.Principal, err error) {
	fields, ok := entry.(map[string]any)
	if !ok {
		return "", who, &domain.ConfigError{Field: "it", Want: "name, token, scopes and topics"}
	}
	for key, value := range fields {
		var good bool
		switch key {
		case "name":
			who.Name, good = value.(string)
		case "token":
			token, good = value.(string)
		case "scopes":
			var scopes []string
			scopes, good = texts(value)
			for _, s := range scopes {
				who.Scopes = append(who.Scopes, grpc.Scope(s))
			}
		case "topics":
			who.Topics, good = texts(value)
		default:
			return "", who, &UnknownError{Where: "tokens", Name: key}
		}
		if !good {
			return "", who, &domain.ConfigError{Field: key, Want: "a text, or a list of texts for scopes and topics"}
		}
	}
	return token, who, nil
}

func texts(value any) ([]string, bool) {
	list, ok := value.([]any)
	if !ok {
		return nil, false
	}
	all := make([]string, len(list))
	for i, v := range list {
		if all[i], ok = v.(string); !ok {
			return nil, false
		}
	}
	return all, true
}
