// Package demo is the YAML of the demonstration: the mesh `shop`, its policies
// and the Dataplanes of its services.
//
// It owns the documents and nothing else; `atoll demo` applies them, and a
// reader may apply them by hand. Words in double braces are variables: addresses
// and ports differ from run to run.
//
//	mesh.yaml          the mesh, and the service that is in both zones
//	permissions.yaml   who may call whom
//	deny.yaml          takes one of these permissions away
//	timeout.yaml       shortens the patience of one caller
//	identity.yaml      how long certificates live
//	proxy-*.yaml       the Dataplanes, one template per service
//
// # Why
//
// The demonstration shows what a user would write, so it is written as a user
// would write it, and compiled in because the executable is all that it needs.
package demo

import "embed"

// Files holds the documents by file name.
//
//go:embed *.yaml
var Files embed.FS
