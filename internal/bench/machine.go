// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// about is where and with what was measured.
type about struct {
	Time       time.Time `json:"time"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     uint64    `json:"memory_bytes"`
	Kernel     string    `json:"kernel"`
	FileSystem string    `json:"ledger_file_system"`
	Go         string    `json:"go"`
	Envoy      string    `json:"envoy,omitempty"`
	Writ       string    `json:"writ"`
}

// look finds out where and with what it measures.
func look(ctx context.Context, at places) (about, error) {
	a, err := lookWithoutEnvoy(ctx, at)
	if err != nil {
		return about{}, err
	}
	if a.Envoy, err = versionOf(ctx, at.envoy, "--version"); err != nil {
		return about{}, err
	}
	// Envoy's ends with commit/number/state/kind/TLS.
	if parts := strings.Split(a.Envoy, "/"); len(parts) >= 5 {
		a.Envoy = parts[len(parts)-4]
	}
	return a, nil
}

// lookWithoutEnvoy is look where Envoy does not take part.
func lookWithoutEnvoy(ctx context.Context, at places) (about, error) {
	a := about{Time: time.Now().UTC().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), Go: runtime.Version()}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		a.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	var system unix.Sysinfo_t
	if err := unix.Sysinfo(&system); err == nil {
		a.Memory = uint64(system.Totalram) * uint64(system.Unit)
	}
	a.FileSystem = fileSystem(at.data)
	var err error
	a.Writ, err = versionOf(ctx, at.writ, "version")
	return a, err
}

// versionOf returns the first line that a program prints of its version.
func versionOf(ctx context.Context, path string, arg string) (string, error) {
	out, err := exec.CommandContext(ctx, path, arg).Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}

// loadAverage is the machine's of the last minute, or 0 where it does not tell.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var load float64
	if _, err := fmt.Sscan(string(text), &load); err != nil {
		return 0
	}
	return load
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range bytes.Lines(text) {
		if key, value, found := strings.Cut(string(line), ":"); found && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// fileSystem names the file system of a directory, or gives its number.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	if known, ok := names[int64(s.Type)]; ok {
		return known
	}
	return fmt.Sprintf("%#x", s.Type)
}
