package config

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// Environment holds variables and their texts, by name. Nothing writes to it. So any number of goroutines may read
// it. A test passes its own Environment and leaves that of the process alone.
type Environment map[string]string

// OfProcess reads the environment of this process, in one pass. envconfig fills a struct that has a text for each variable: of
// Config itself it would print the first bad value and stop there, and it would read 010 as eight.
func OfProcess() (Environment, error) {
	// One pass: a variable that changes while the process starts is read once.
	variables := Variables()
	fields := make([]reflect.StructField, len(variables))
	for i, v := range variables {
		fields[i] = reflect.StructField{
			Name: fmt.Sprint("Text", i), Type: reflect.TypeFor[string](), Tag: reflect.StructTag(fmt.Sprintf("envconfig:%q", v.Name)),
		}
	}
	texts := reflect.New(reflect.StructOf(fields))
	if err := envconfig.Process("", texts.Interface()); err != nil {
		return nil, err
	}
	env := Environment{}
	for i, v := range variables {
		// envconfig gives an empty text both for unset and for empty.
		if _, set := os.LookupEnv(v.Name); set || !v.MayBeEmpty {
			env[v.Name] = texts.Elem().Field(i).String()
		}
	}
	for _, name := range borrowedNames() {
		env[name] = os.Getenv(name)
	}
	// Left are the twins, and names that nobody knows, which Load reports.
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if _, known := env[name]; !known && strings.HasPrefix(name, "GOFER_") {
			env[name] = value
		}
	}
	return env, nil
}

// Variable is the documentation of a variable. A table of all of them is the source of gofer config usage, of the
// checks here and of cmd/gofer/README.md.
type Variable struct {
	Name, Default, Meaning string
	Secret                 bool
	// MayBeEmpty says that the variable has a value when it is set and empty.
	MayBeEmpty bool
}

// Variables lists every variable in the order of Config. That order groups what belongs together, and all documents
// keep it.
func Variables() (out []Variable) {
	eachVariable(reflect.ValueOf(new(Config)).Elem(), func(v Variable, _ reflect.Value) { out = append(out, v) })
	return out
}

// Twin is the variable that names a file with the value; empty if there is none. The file of GOFER_PROXIES is a variable of its
// own, for both count.
func (v Variable) Twin() string {
	if !v.Secret || v.Name == "GOFER_PROXIES" {
		return ""
	}
	return v.Name + "_FILE"
}

// eachVariable calls use for each field of a struct that is a variable, and for those of the structs in it, in the order
// of the declarations.
func eachVariable(of reflect.Value, use func(Variable, reflect.Value)) {
	for i := range of.NumField() {
		field := of.Type().Field(i)
		// A struct without the tag holds variables itself.
		if name, ok := field.Tag.Lookup("envconfig"); ok {
			_, empty := reflect.TypeAssert[interface{ mayBeEmpty() }](of.Field(i))
			use(Variable{name, field.Tag.Get("default"), field.Tag.Get("desc"), field.Tag.Get("secret") == "true", empty}, of.Field(i))
		} else if field.IsExported() {
			eachVariable(of.Field(i), use)
		}
	}
}

// texts are the variables that are set, without the blanks around their values, secrets excepted. An empty variable counts as
// unset, as in the shell's ${VAR:-default}, unless it may be empty. The value of a secret may stand in a file. A
// reason names the variable and the path of its file, never a value.
func (env Environment) texts() (set map[string]string, reasons []string) {
	set = map[string]string{}
	for _, v := range Variables() {
		// An absent variable is the empty text.
		value, present := env[v.Name]
		trimmed := strings.TrimSpace(value)
		// A secret may begin or end with a blank, so only its emptiness is judged by the trimmed text.
		if !v.Secret {
			value = trimmed
		}
		// The twin of a variable that has none is the empty name, which no environment has.
		path := strings.TrimSpace(env[v.Twin()])
		switch {
		case path != "" && trimmed != "":
			reasons = append(reasons, v.Name+", "+v.Twin()+": both are set, keep one")
		case path != "":
			var err error
			if value, err = secretIn(path); err != nil {
				reasons = append(reasons, v.Twin()+": "+err.Error())
				// The reason was given; whether the variable is in range is not known.
				continue
			}
		case trimmed == "" && (!present || !v.MayBeEmpty):
			continue
		}
		set[v.Name] = value
	}
	return set, reasons
}

// secretIn reads a secret from a file: text without a byte order mark and without the line end that editors add. An empty file is
// an error, for it would pass as a secret that is not set.
func secretIn(path string) (string, error) {
	data, err := readSecret(path)
	if err == nil {
		data, err = text.Document(data)
	}
	if err == nil && len(data) == 0 {
		err = errors.New("the file is empty")
	}
	return string(data), err
}

// fill sets each field of c from the variables that are set, and the others to their defaults. A reason names a variable
// with a bad value without the value. That field gets its default, so that check does not report it again. The
// order of the reasons is that of Config.
func (c *Config) fill(set map[string]string) (reasons []string) {
	eachVariable(reflect.ValueOf(c).Elem(), func(v Variable, field reflect.Value) {
		// A variable that is set and wrong is reported once, here, and has its default for the later checks.
		written, ok := set[v.Name]
		if ok {
			err := assign(field.Addr().Interface(), written)
			if err == nil {
				return
			}
			reasons = append(reasons, v.Name+": "+expectation(v.Name, field.Addr().Interface(), err))
		}
		if v.Default != "" {
			_ = assign(field.Addr().Interface(), v.Default) // never fails: a test reads every default
		}
	})
	return reasons
}

// assign reads text as the type that to points at. Numbers are decimal: 010 is ten.
func assign(to any, written string) (err error) {
	var whole int64
	switch to := to.(type) {
	case *string:
		*to = written
	case *bool:
		*to, err = strconv.ParseBool(written)
	// text.Int bounds a number to what an int64 holds. On 64-bit machines, where gofer is tested, an int holds the
	// same.
	case *int:
		whole, err = text.Int(written)
		*to = int(whole)
	case *int64:
		*to, err = text.Int(written)
	case *float64:
		*to, err = text.Float(written)
	case encoding.TextUnmarshaler:
		err = to.UnmarshalText([]byte(written))
	default:
		// It would be a mistake of the program, which the test of the defaults finds.
		err = fmt.Errorf("a %T is no variable", to)
	}
	return err
}

// expectation says what the text of a variable looks like, as the end of a reason. Only the errors of lists of queues are
// repeated: others may hold the text, which may be a secret.
func expectation(name string, of any, err error) string {
	if b, ok := durationBound(name); ok && errors.Is(err, jobs.ErrTooLong) {
		return "not " + b.String()
	} else if ok {
		return "not " + b.String() + `: a duration is "1.5s", "2m" or a number of seconds`
	}
	switch of.(type) {
	case *bool:
		return "neither true nor false"
	case *float64:
		return "not a decimal number"
	case *statusList, *bans:
		return "not a comma separated list of whole numbers"
	case *queueList:
		return err.Error() + ": write a list such as critical:6,default:3,low:1 (names [a-z0-9_-]{1,32}, weights 1 to 1000, at most 32)"
	}
	return "not a whole number, in decimal digits"
}
