package main

import (
	_ "embed"
	"encoding/base64"
)

//go:embed icon.svg
var iconSVG []byte

// icon is what hosts may show beside the server's name, as an address that holds it.
var icon = "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString(iconSVG)
