// Renders a Helm chart's templates with Go's own text/template, which is what Helm uses.
//
// `go run chart_render.go FOLDER` reads {"Values": …, "Release": …} from standard input and writes
// the templates' results, one after the other, as documents of YAML. Of Helm's own functions those
// are here that the chart uses.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

func failed(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var values map[string]interface{}
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	failed(decoder.Decode(&values))
	all := template.New("chart").Option("missingkey=error")
	all.Funcs(template.FuncMap{
		"quote":      func(given interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(given)) },
		"nindent":    nindent,
		"toJson":     toJSON,
		"trunc":      func(most int, text string) string { return text[:min(most, len(text))] },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"required": func(what, given string) (string, error) {
			if given == "" {
				return "", fmt.Errorf("%s is required", what)
			}
			return given, nil
		},
		"include": func(name string, given interface{}) (string, error) {
			var text strings.Builder
			err := all.ExecuteTemplate(&text, name, given)
			return text.String(), err
		},
	})
	files, err := filepath.Glob(filepath.Join(os.Args[1], "templates", "*"))
	failed(err)
	_, err = all.ParseFiles(files...)
	failed(err)
	for _, each := range files {
		if filepath.Ext(each) == ".yaml" {
			fmt.Println("---")
			failed(all.ExecuteTemplate(os.Stdout, filepath.Base(each), values))
		}
	}
}

func min(first, second int) int {
	if first < second {
		return first
	}
	return second
}

func nindent(width int, text string) string {
	lines := strings.Split(text, "\n")
	return "\n" + strings.Repeat(" ", width) + strings.Join(lines, "\n"+strings.Repeat(" ", width))
}

func toJSON(given interface{}) (string, error) {
	raw, err := json.Marshal(given)
	return string(raw), err
}
