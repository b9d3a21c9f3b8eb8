package rootfs

// OpenTarget is openTarget.
var OpenTarget = openTarget

// MakeDisk is makeDisk, MountDisk is mountDisk.
var (
	MakeDisk  = makeDisk
	MountDisk = mountDisk
)
