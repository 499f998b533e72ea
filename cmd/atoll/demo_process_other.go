//go:build !linux

package main

import "syscall"

// dieWithParent gives a child a process group. Only Linux ends a child together
// with a parent that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
