//go:build linux && cgo

package container

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runc/libcontainer/apparmor"
	"github.com/opencontainers/selinux/go-selinux"
)

// CheckLabels tells whether the kernel can apply an AppArmor profile and an SELinux label; empty: none.
func CheckLabels(profile, label string) error {
	if profile != "" && !apparmor.IsEnabled() {
		return fmt.Errorf("%w: AppArmor is not enabled on this host: boot with apparmor in its lsm= parameter, or leave the profile %.64q out",
			errors.ErrUnsupported, profile)
	}
	if label != "" && !selinux.GetEnabled() {
		return fmt.Errorf("%w: SELinux is not enabled on this host: boot with selinux=1, or leave the label %.64q out", errors.ErrUnsupported, label)
	}
	return nil
}
