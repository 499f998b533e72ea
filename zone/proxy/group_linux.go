package proxy

import "syscall"

// ownGroup gives Envoy a process group, and lets it die with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
