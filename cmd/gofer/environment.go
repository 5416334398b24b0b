package main

import (
	"encoding"
	"errors"
	"os"
	"reflect"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"github.com/gofer-mq/gofer/jobs/text"
)

// tidy takes blanks off around values, secrets excepted. An empty variable counts as unset, as in the shell's
// ${VAR:-default}.
func tidy() {
	for _, v := range variables() {
		value, set := os.LookupEnv(v.name)
		switch trimmed := strings.TrimSpace(value); {
		case set && trimmed == "":
			_ = os.Unsetenv(v.name)
		case trimmed != value && !v.secret:
			_ = os.Setenv(v.name, trimmed)
		}
	}
}

// notDecimal takes out the numbers that are no decimal ones: envconfig would read 010 as eight.
func notDecimal() (reasons []string) {
	for _, v := range variables() {
		value := os.Getenv(v.name)
		var err error
		switch v.kind {
		case reflect.Int, reflect.Int64:
			_, err = text.Int(value)
		case reflect.Float64:
			_, err = text.Float(value)
		default:
			continue
		}
		if value != "" && err != nil {
			reasons = append(reasons, v.name+": "+expectation(v.kind.String()))
			_ = os.Unsetenv(v.name)
		}
	}
	return reasons
}

// process fills c. envconfig stops at the first bad value and prints it, so each bad one is noted without its value,
// taken out, and the rest is read again.
func process(c *config) (reasons []string) {
	for range variables() {
		err := envconfig.Process("", c)
		if err == nil {
			return reasons
		}
		var bad *envconfig.ParseError
		if !errors.As(err, &bad) {
			return append(reasons, err.Error())
		}
		// Within a struct in the struct, envconfig puts the outer field's name in front.
		name := bad.KeyName[strings.Index(bad.KeyName, "GOFER_"):]
		reasons = append(reasons, name+": "+expectation(bad.TypeName))
		_ = os.Unsetenv(name)
	}
	return reasons
}

// expectation says what a variable of a type looks like.
func expectation(typeName string) string {
	switch typeName {
	case "jobs.Duration":
		return `not a duration: write "1.5s", "2m" or a number of seconds`
	case "bool":
		return "neither true nor false"
	case "float64":
		return "not a decimal number"
	case "main.statusList":
		return "not a comma separated list of whole numbers"
	case "main.queueList":
		return "not a list of queues such as critical:6,default:3,low:1 (names [a-z0-9_-]{1,32}, weights 1 to 1000, at most 32)"
	}
	return "not a whole number, in decimal digits"
}

// variable is one line of the documentation.
type variable struct {
	name, fallback, desc string
	secret               bool
	kind                 reflect.Kind // what its text is read as; Invalid if the type reads it by itself
}

// effective returns the current value and where it comes from. Of a secret it shows only that it is set.
func (v variable) effective() (value, source string) {
	switch set := os.Getenv(v.name); {
	case set == "":
		return v.fallback, "default"
	case v.secret:
		return "(set)", "environment"
	default:
		return set, "environment"
	}
}

// variables lists every variable in the order of the struct.
func variables() []variable { return variablesOf(reflect.TypeFor[config]()) }

func variablesOf(t reflect.Type) (out []variable) {
	for field := range t.Fields() {
		if name, ok := field.Tag.Lookup("envconfig"); ok {
			v := variable{
				name: name, fallback: field.Tag.Get("default"),
				desc: field.Tag.Get("desc"), secret: field.Tag.Get("secret") == "true",
			}
			if !reflect.PointerTo(field.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				v.kind = field.Type.Kind()
			}
			out = append(out, v)
			continue
		}
		out = append(out, variablesOf(field.Type)...)
	}
	return out
}

// readSecretFiles takes each secret whose …_FILE twin is set from that file.
func readSecretFiles() (reasons []string) {
	for _, v := range variables() {
		twin := v.name + "_FILE"
		path := strings.TrimSpace(os.Getenv(twin))
		if !v.secret || path == "" || twin == "GOFER_PROXIES_FILE" {
			continue
		}
		if os.Getenv(v.name) != "" {
			reasons = append(reasons, v.name+", "+twin+": both are set, keep one")
			continue
		}
		data, err := os.ReadFile(path)
		if err == nil {
			data, err = text.Document(data)
		}
		if err == nil && len(data) == 0 {
			err = errors.New("the file is empty")
		}
		if err != nil {
			reasons = append(reasons, twin+": "+err.Error())
			continue
		}
		_ = os.Setenv(v.name, string(data))
		_ = os.Unsetenv(twin)
	}
	return reasons
}
