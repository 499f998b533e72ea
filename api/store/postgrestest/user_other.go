//go:build !linux

package postgrestest

import "syscall"

// unprivileged changes nothing: PostgreSQL refuses to run as root, so tests
// cannot either.
func unprivileged() *syscall.SysProcAttr { return nil }

func give(string) error { return nil }

func reachable(string) bool { return true }

// children are left to notice the death of the server by themselves.
func children(int) []int { return nil }

func alive(int) bool { return false }
