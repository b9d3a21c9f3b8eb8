package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// notToWrite are the file systems whose files are the kernel's own. It looks at who writes, which would be
// the host: a link in the sandbox must not borrow its rights.
var notToWrite = map[int64]bool{
	unix.PROC_SUPER_MAGIC:    true,
	unix.SYSFS_MAGIC:         true,
	unix.CGROUP_SUPER_MAGIC:  true,
	unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC:       true,
	unix.TRACEFS_MAGIC:       true,
	unix.SECURITYFS_MAGIC:    true,
	unix.SELINUX_MAGIC:       true,
	unix.BPF_FS_MAGIC:        true,
	unix.EFIVARFS_MAGIC:      true,
	unix.BINFMTFS_MAGIC:      true,
	unix.NSFS_MAGIC:          true,
}

// received makes a file of a descriptor that the agent sent if it is a regular file or a directory, and no file to
// write that is the kernel's.
func received(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, errReply
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return nil, err
		}
		if notToWrite[int64(fs.Type)] {
			return nil, unix.EPERM
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}
