// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync leaves out the times of the inode, which nobody needs.
func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = c.Control(func(fd uintptr) {
		for {
			if syncErr = unix.Fdatasync(int(fd)); !errors.Is(syncErr, unix.EINTR) { //nolint:gosec // descriptors are small
				return
			}
		}
	})
	return errors.Join(err, syncErr)
}
