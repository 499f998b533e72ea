//go:build !linux

package proxy

import "syscall"

// ownGroup gives Envoy a process group. Only Linux ends a child with its parent;
// elsewhere an Envoy outlives a killed `atoll dp`.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
