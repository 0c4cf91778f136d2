package remote

import "strings"

// runsHere are names, in lower case, whose files programs of this computer run, or take settings from that say what is
// run: git, agent hosts and editors, shells. Whoever writes them on a machine that is not trusted would run programs here, or
// raise the limits that an agent host hands to gpulease. What gpulease keeps on a machine is of no use here either.
var runsHere = map[string]bool{
	".git": true, ".githooks": true, ".husky": true, ".gpulease": true,
	".mcp.json": true, ".claude": true, ".claude.json": true, ".codex": true, ".cursor": true, ".gemini": true, ".kiro": true, ".windsurf": true,
	".vscode": true, ".idea": true, ".zed": true, ".devcontainer": true,
	".ssh": true, ".gnupg": true, ".envrc": true, ".direnv": true,
	".profile": true, ".login": true, ".logout": true, ".bashrc": true, ".bash_profile": true, ".bash_login": true, ".bash_logout": true,
	".zshrc": true, ".zshenv": true, ".zprofile": true, ".zlogin": true, ".zlogout": true, ".cshrc": true, ".tcshrc": true, ".kshrc": true,
}

// RunsHere reports whether a path holds a name whose files programs of this computer would run or obey, and which part of the
// path leads to it. No fetch writes there.
func RunsHere(path string) (part string, yes bool) {
	for at, name := 0, ""; at < len(path); at += len(name) + 1 {
		name, _, _ = strings.Cut(path[at:], "/")
		if runsHere[strings.ToLower(name)] {
			return path[:at+len(name)], true
		}
	}
	return "", false
}
