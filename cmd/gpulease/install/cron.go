package install

import (
	"fmt"
	"strings"
	"time"
)

// Cron is a line for crontab that does the same, "" where cron cannot do it.
func (s Service) Cron() string {
	minutes := int(s.Every / time.Minute)
	if minutes < 1 || s.Every%time.Minute != 0 || 60%minutes != 0 || s.EnvFile != "" || s.check() != nil {
		return ""
	}
	when := fmt.Sprintf("*/%d", minutes)
	if minutes == 60 {
		when = "0"
	}
	var words []string
	for _, v := range s.Env {
		words = append(words, v.Name+"="+shellWord(v.Value))
	}
	for _, a := range append([]string{s.Program}, s.Args...) {
		words = append(words, shellWord(a))
	}
	// To cron, a percent sign ends the line.
	return when + " * * * * " + strings.ReplaceAll(strings.Join(words, " "), "%", `\%`)
}

func shellWord(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@:=,%", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
