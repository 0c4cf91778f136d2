package install

import (
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
)

// Label is the name of the launchd agent.
func (s Service) Label() string { return "ai.gpulease." + s.Name }

// Launchd is the agent for dir, signed.
func (s Service) Launchd(dir string) (File, error) {
	if err := s.check(); err != nil {
		return File{}, err
	}
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(&b, strings.Repeat("  ", indent)+format+"\n", args...)
	}
	text := func(indent int, tag, value string) { line(indent, "<%s>%s</%s>", tag, escapeXML(value), tag) }
	line(0, `<?xml version="1.0" encoding="UTF-8"?>`)
	line(0, `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">`)
	line(0, "<!-- Written by gpulease install %s: %s. See %s -->", s.Name, s.About, documentation)
	line(0, `<plist version="1.0">`)
	line(0, "<dict>")
	text(1, "key", "Label")
	text(1, "string", s.Label())
	text(1, "key", "ProgramArguments")
	line(1, "<array>")
	for _, a := range append([]string{s.Program}, s.Args...) {
		text(2, "string", a)
	}
	line(1, "</array>")
	text(1, "key", "EnvironmentVariables")
	line(1, "<dict>")
	for _, v := range s.Env {
		text(2, "key", v.Name)
		text(2, "string", v.Value)
	}
	line(1, "</dict>")
	text(1, "key", "WorkingDirectory")
	text(1, "string", s.Home)
	text(1, "key", "RunAtLoad")
	line(1, "<true/>")
	if s.Every > 0 {
		text(1, "key", "StartInterval")
		line(1, "<integer>%d</integer>", int(s.Every.Seconds()))
	} else {
		text(1, "key", "KeepAlive")
		line(1, "<true/>")
		text(1, "key", "ThrottleInterval")
		line(1, "<integer>10</integer>")
	}
	if s.Log != "" {
		text(1, "key", "StandardErrorPath")
		text(1, "string", s.Log)
	}
	b.WriteString(launchdLimits)
	line(0, "</dict>")
	line(0, "</plist>")
	return File{filepath.Join(dir, s.Label()+".plist"), sign(b.String(), "<!-- ", " -->")}, nil
}

// launchdLimits: nobody else reads its files (077 in decimal), and the API key in
// its memory goes into no core dump.
const launchdLimits = `  <key>ProcessType</key>
  <string>Background</string>
  <key>Umask</key>
  <integer>63</integer>
  <key>HardResourceLimits</key>
  <dict>
    <key>Core</key>
    <integer>0</integer>
  </dict>
`

func escapeXML(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
