// Package settings reads the configuration of the command line tool in layers:
// flags over STREAMHOUSE_ environment variables over a YAML file.
//
// A setting has one name everywhere: the flag --batch-bytes, the variable
// STREAMHOUSE_BATCH_BYTES and the key batch-bytes of the file are the same. An unknown name
// and a wrong value are errors in every layer, and all of them are reported at once.
package settings

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/streamhouse/streamhouse/app/janitor"
	"github.com/streamhouse/streamhouse/app/producer"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/logging"
	"github.com/streamhouse/streamhouse/domain"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "STREAMHOUSE_"

// ConfigFlag names the flag, and with EnvPrefix the variable, that gives the
// file. It cannot stand in the file.
const ConfigFlag = "config"

// noDelim keeps koanf from taking names apart: ours are flat, and a key with a
// dot in it is one unknown key.
const noDelim = "\x00"

// Settings is what the layers say together, over the defaults.
type Settings struct {
	// Data is the folder of the stores that no URL is given for.
	Data string
	// Metadata and Segments are store URLs; empty means in Data.
	Metadata string
	Segments string
	// JSON is the choice of --output json.
	JSON bool
	// Compress chooses LZ4; off sends batches as they are.
	Compress bool
	// Producer is complete but for its Codec.
	Producer producer.Config
	// FetchBytes bounds one fetch of a consumer; 0 is the consumer's default.
	FetchBytes int64
	// Janitor is complete.
	Janitor janitor.Config
	// Agents says how clients reach agents, Serve what an agent is.
	Agents Agents
	Serve  Serve
	// Log says how the long-running commands tell what happens.
	Log logging.Config

	given map[string]any // what was not left to its default
}

// Agents is how a client reaches a cluster through its agents. Without
// Addresses it opens the stores itself.
type Agents struct {
	Addresses []string
	Group     string
	Zone      string
	// Token is the bearer token; it is never shown.
	Token string
	TLS   TLSFiles
}

// TLSFiles name PEM files; empty means none.
type TLSFiles struct{ CA, Cert, Key string }

// Serve is what an agent is.
type Serve struct {
	// Listen is where it serves clients, Advertise what it is listed as; empty
	// means the address that it listens on.
	Listen, Advertise string
	// Admin is where it serves its operators; empty means nowhere.
	Admin      string
	AdminToken string
	Group      string
	Zone       string
	// FlushInterval is how long batches wait for company. Below 0 it is left to
	// the segment store: 250ms in a bucket, nothing in a folder.
	FlushInterval time.Duration
	FlushBytes    int64
	// CacheBytes is the memory for what consumers read: a third for what this
	// agent has just stored. 0 keeps nothing; below 0 it is left to the segment store: 192 MiB for
	// a bucket, and for a folder the third alone.
	CacheBytes   int64
	DrainTimeout time.Duration
	TLS          TLSFiles
	// Tokens is a YAML file of tokens; without it everybody may do everything.
	Tokens     string
	Reflection bool
}

// Defaults returns the settings with nothing given.
func Defaults() Settings {
	return Settings{
		Data: "./data", Compress: true, Producer: producer.DefaultConfig(), Janitor: janitor.DefaultConfig(),
		Agents: Agents{Group: "default"},
		Serve: Serve{
			Listen: "127.0.0.1:7070", Admin: "127.0.0.1:7071", Group: "default",
			FlushInterval: -1, FlushBytes: 8 << 20, CacheBytes: -1, DrainTimeout: 30 * time.Second,
		},
	}
}

// UnknownError is a name that no setting has.
type UnknownError struct {
	// Where is the file, or "environment".
	Where string
	Name  string
	// Like is the known name closest to it, if one is close.
	Like string
}

func (e *UnknownError) Error() string {
	s := fmt.Sprintf("%s: unknown key %.80q", e.Where, e.Name)
	if e.Like != "" {
		s += ": did you mean " + e.Like + "?"
	}
	return s
}

// Unwrap gives the class domain.ErrConfig.
func (e *UnknownError) Unwrap() error { return domain.ErrConfig }

// Load reads the settings from the flags that were given, the environment (in
// the form of os.Environ) and the file that either of them names.
//
// The error joins every fault of every layer: *UnknownError, *domain.ConfigError whose
// Field says where, or why the file cannot be read.
func Load(flags *pflag.FlagSet, environ []string) (Settings, error) {
	fromFlags, fromEnv := flagLayer(flags), envLayer(environ)
	layers := []layer{fromEnv, fromFlags}
	path := fromEnv.takeConfig()
	if given := fromFlags.takeConfig(); given != "" {
		path = given
	}
	var faults []error
	if path != "" {
		fromFile, err := fileLayer(path)
		if err != nil {
			faults = append(faults, err)
		}
		layers = append([]layer{fromFile}, layers...)
	}
	merged := koanf.New(noDelim)
	for _, l := range layers {
		faults = append(faults, l.check()...)
		if err := merged.Merge(l.values); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return Settings{}, err
	}
	return build(merged.Raw())
}

// layer is one source of settings.
type layer struct {
	values *koanf.Koanf
	// where says where a key of it stands.
	where func(key string) string
	// source names the whole, for unknown keys.
	source string
	// spell turns a key into the form it has in the source.
	spell func(key string) string
}

func verbatim(key string) string { return key }

func flagLayer(flags *pflag.FlagSet) layer {
	k := koanf.New(noDelim)
	provider := posflag.ProviderWithFlag(flags, noDelim, nil, func(f *pflag.Flag) (string, any) {
		if _, known := byName[f.Name]; !known && f.Name != ConfigFlag || !f.Changed {
			return "", nil
		}
		return f.Name, f.Value.String()
	})
	load(k, provider, nil)
	spell := func(key string) string { return "--" + key }
	return layer{values: k, source: "flags", where: spell, spell: spell}
}

func envLayer(environ []string) layer {
	k := koanf.New(noDelim)
	load(k, env.Provider("", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			return envKey(name), value
		},
	}), nil)
	return layer{values: k, source: "environment", where: envName, spell: envName}
}

// envKey turns STREAMHOUSE_BATCH_BYTES into batch-bytes. Another spelling of a
// known name stays what it is, and so is unknown.
func envKey(name string) string {
	key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, EnvPrefix), "_", "-"))
	if envName(key) != name {
		return name
	}
	return key
}

func envName(key string) string {
	if strings.HasPrefix(key, EnvPrefix) {
		return key
	}
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func fileLayer(path string) (layer, error) {
	k := koanf.New(noDelim)
	l := layer{values: k, source: path, spell: verbatim, where: func(key string) string { return path + ": " + key }}
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return l, fmt.Errorf("%w: configuration file %s: %w", domain.ErrConfig, path, plainCause(err))
	}
	return l, nil
}

// plainCause takes off the path that os puts before its errors.
func plainCause(err error) error {
	var cause interface{ Unwrap() error }
	if errors.As(err, &cause) && strings.HasPrefix(err.Error(), "open ") {
		return cause.Unwrap()
	}
	return err
}

// load loads from a provider that reads memory only and cannot fail.
func load(k *koanf.Koanf, p koanf.Provider, parser koanf.Parser) {
	if err := k.Load(p, parser); err != nil {
		panic("settings: reading memory: " + err.Error())
	}
}

// takeConfig removes the setting that names the file and returns it.
func (l layer) takeConfig() string {
	path := l.values.String(ConfigFlag)
	l.values.Delete(ConfigFlag)
	return path
}

// check returns every fault of the layer, sorted by key.
func (l layer) check() []error {
	var faults []error
	for _, key := range sortedKeys(l.values.Raw()) {
		s, known := byName[key]
		if !known {
			unknown := &UnknownError{Where: l.source, Name: l.spell(key)}
			if like := closest(key); like != "" {
				unknown.Like = l.spell(like)
			}
			faults = append(faults, unknown)
			continue
		}
		scratch := Defaults()
		if err := s.apply(&scratch, l.values.Raw()[key]); err != nil {
			faults = append(faults, inField(err, l.where(key)))
		}
	}
	return faults
}

// inField says where the value stands that err refuses.
func inField(err error, where string) error {
	var fault *domain.ConfigError
	if errors.As(err, &fault) {
		named := *fault
		named.Field = where
		return &named
	}
	return fmt.Errorf("%s: %w", where, err)
}

// build applies what was checked before, and checks what concerns several
// settings together.
func build(values map[string]any) (Settings, error) {
	s := Defaults()
	s.given = values
	for _, key := range sortedKeys(values) {
		if err := byName[key].apply(&s, values[key]); err != nil {
			return Settings{}, inField(err, key)
		}
	}
	if s.Producer.Name != "" && !s.Producer.Idempotence {
		return Settings{}, &domain.ConfigError{Field: "producer-name", Value: s.Producer.Name, Want: "idempotence on"}
	}
	return s, nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
