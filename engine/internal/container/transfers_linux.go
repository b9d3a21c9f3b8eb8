//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// limitTransfers adds to r how often a device is read, and written, in a second.
func limitTransfers(m cgroups.Manager, r *cgroups.Resources, device uint64, n int64) error {
	dir, names := transferFiles(m)
	if _, err := os.Stat(filepath.Join(dir, names[0])); dir == "" || err != nil {
		switch {
		case n < 0:
			return nil
		case !m.Exists():
			return fs.ErrNotExist
		}
		return fmt.Errorf("%w: transfers of the disk can't be limited: there is no controller for them: boot with the cgroup "+
			"controller io, which is blkio in version 1; or ask for a sandbox without this limit, Limits.DiskIOPS: -1", errors.ErrUnsupported)
	}
	if n < 0 {
		n = unlimited
	}
	most := []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(int64(unix.Major(device)), int64(unix.Minor(device)), uint64(n))}
	r.BlkioThrottleReadIOPSDevice, r.BlkioThrottleWriteIOPSDevice = most, most
	return nil
}

// unlimited is what the kernel takes for no limit of transfers.
const unlimited = math.MaxUint32

// transferFiles are those of a cgroup that say how often devices are read, and written: a line for each,
// "7:1 4000" or "7:1 rbps=max wbps=max riops=4000 wiops=4000". Without the controller of version 1 there is no directory.
func transferFiles(m cgroups.Manager) (dir string, names []string) {
	if cgroups.IsCgroup2UnifiedMode() {
		return m.Path(""), []string{"io.max"}
	}
	return m.Path("blkio"), []string{"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"}
}

// readTransfers reads how often the one device with a limit is read or written at most, and its number.
func readTransfers(m cgroups.Manager) (device uint64, n int64, err error) {
	n = -1
	dir, names := transferFiles(m)
	if dir == "" {
		return 0, n, nil
	}
	for _, name := range names {
		data, err := cgroups.ReadFile(dir, name)
		if isGone(err) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		fields := strings.Fields(data)
		if len(fields) == 0 {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &major, &minor); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", name, err)
		}
		device = unix.Mkdev(major, minor)
		for _, field := range fields[1:] {
			number := strings.TrimPrefix(strings.TrimPrefix(field, "riops="), "wiops=")
			if v, err := strconv.ParseInt(number, 10, 64); err == nil && v < unlimited {
				n = max(n, v)
			}
		}
	}
	return device, n, nil
}

// writeTransfers sets the limit on transfers of a device; negative: none.
func writeTransfers(m cgroups.Manager, device uint64, n int64) (err error) {
	if n < 0 {
		n = unlimited
	}
	format := "%d:%d %d"
	if cgroups.IsCgroup2UnifiedMode() {
		format = "%d:%d riops=%d wiops=%[3]d"
	}
	dir, names := transferFiles(m)
	for _, name := range names {
		err = errors.Join(err, cgroups.WriteFile(dir, name, fmt.Sprintf(format, unix.Major(device), unix.Minor(device), n)))
	}
	return err
}

// hasten takes away the limit on transfers. A process doesn't end before those that it has asked for, which may have to
// wait for it. It doesn't set it by the manager: another sandbox's limit may be in the way there for long, see set.
func hasten(m cgroups.Manager) error {
	device, n, err := readTransfers(m)
	if err != nil || n < 0 {
		return err
	}
	return writeTransfers(m, device, -1)
}
