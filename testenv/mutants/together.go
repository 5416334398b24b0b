package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// chosenBy is the environment variable with the number of the mutant that a test binary is. Without it the binary is sound.
const chosenBy = "GOFER_MUTANT"

// chooser is added to each package that has mutants.
const chooser = `package %s

import (
	"os"
	"strconv"
)

var mutantOfTheTests = func() int {
	n, _ := strconv.Atoi(os.Getenv("` + chosenBy + `"))
	return n
}()
`

// together writes an overlay in which each function that a mutant changes exists once more for each of its mutants, and calls
// the one that is chosen. So the tests are built once, and not for each mutant. numbered are the mutants that it holds, by
// their numbers in mutants. The others change more than the body of a function, or are named by broken because they cannot be
// built, and each is built alone.
func together(root, dir string, mutants []mutant, broken map[int]bool) (overlay string, numbered map[int]bool, err error) {
	byFile := map[string][]int{}
	for i, m := range mutants {
		byFile[m.file] = append(byFile[m.file], i)
	}
	numbered = map[int]bool{}
	replace := map[string]string{}
	for file, numbers := range byFile {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			return "", nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
		if err != nil {
			return "", nil, err
		}
		numbers = slices.DeleteFunc(numbers, func(n int) bool { return broken[n] })
		written := withMutants(source, parsed, mutants, numbers, numbered)
		name := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		replace[filepath.Join(root, filepath.FromSlash(file))] = name
		if err := os.WriteFile(name, written, 0o600); err != nil {
			return "", nil, err
		}
		choose := filepath.Join(dir, parsed.Name.Name+"_mutant.go")
		replace[filepath.Join(root, filepath.FromSlash(path.Dir(file)), "mutantofthetests.go")] = choose
		if err := os.WriteFile(choose, fmt.Appendf(nil, chooser, parsed.Name.Name), 0o600); err != nil {
			return "", nil, err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", nil, err
	}
	overlay = filepath.Join(dir, "together.json")
	return overlay, numbered, os.WriteFile(overlay, text, 0o600)
}

// withMutants is the source of a file with its mutants, and notes in numbered which these are.
func withMutants(source []byte, file *ast.File, mutants []mutant, numbers []int, numbered map[int]bool) []byte {
	base := int(file.FileStart)
	var copies bytes.Buffer
	type insertion struct {
		at   int
		text string
	}
	var calls []insertion
	for _, n := range numbers {
		first := bytes.Index(source, []byte(mutants[n].old))
		last := first + len(mutants[n].old)
		for _, d := range file.Decls {
			f, isFunc := d.(*ast.FuncDecl)
			if !isFunc || f.Body == nil || int(f.Body.Lbrace)-base >= first || int(f.Body.Rbrace)-base < last {
				continue
			}
			name := fmt.Sprintf("%s_mutant%d", f.Name.Name, n)
			call, ok := callOf(f, name)
			if !ok {
				continue
			}
			start, nameEnd, end := int(f.Pos())-base, int(f.Name.End())-base, int(f.End())-base
			head := string(source[start:int(f.Name.Pos())-base]) + name
			body := string(source[nameEnd:first]) + mutants[n].new + string(source[last:end])
			fmt.Fprintf(&copies, "\n%s%s\n", head, body)
			calls = append(calls, insertion{int(f.Body.Lbrace) - base + 1, fmt.Sprintf("\nif mutantOfTheTests == %d { %s }\n", n+1, call)})
			numbered[n] = true
		}
	}
	slices.SortStableFunc(calls, func(a, b insertion) int { return b.at - a.at })
	for _, c := range calls {
		source = slices.Concat(source[:c.at], []byte(c.text), source[c.at:])
	}
	return slices.Concat(source, copies.Bytes())
}

// callOf calls the function of that name as f was called. It is not ok if a parameter has no name.
func callOf(f *ast.FuncDecl, name string) (call string, ok bool) {
	if f.Recv != nil {
		names := f.Recv.List[0].Names
		if len(names) == 0 || names[0].Name == "_" {
			return "", false
		}
		name = names[0].Name + "." + name
	}
	if f.Name.Name == "init" || f.Name.Name == "main" {
		return "", false
	}
	list := func(fields *ast.FieldList) (out []string) {
		if fields == nil {
			return nil
		}
		for _, field := range fields.List {
			ok = ok && len(field.Names) > 0
			for _, n := range field.Names {
				ok = ok && n.Name != "_"
				dots := ""
				if _, variadic := field.Type.(*ast.Ellipsis); variadic {
					dots = "..."
				}
				out = append(out, n.Name+dots)
			}
		}
		return out
	}
	ok = true
	if types := list(f.Type.TypeParams); len(types) > 0 {
		name += "[" + strings.Join(types, ", ") + "]"
	}
	call = name + "(" + strings.Join(list(f.Type.Params), ", ") + ")"
	if f.Type.Results != nil {
		return "return " + call, ok
	}
	return call + "; return", ok
}

var (
	compilerError = regexp.MustCompile(`(?m)^(\S+\.go):(\d+):`)
	mutantsCopy   = regexp.MustCompile(`^func .*_mutant(\d+)[\[(]`)
)

// brokenBy finds the mutants that the compiler's words are about.
func brokenBy(words string) (numbers []int) {
	for _, match := range compilerError.FindAllStringSubmatch(words, -1) {
		source, err := os.ReadFile(match[1])
		if err != nil {
			continue
		}
		at, _ := strconv.Atoi(match[2])
		lines := strings.Split(string(source), "\n")
		for i := min(at, len(lines)) - 1; i >= 0; i-- {
			if copied := mutantsCopy.FindStringSubmatch(lines[i]); copied != nil {
				n, _ := strconv.Atoi(copied[1])
				numbers = append(numbers, n)
				break
			}
		}
	}
	return numbers
}
