package rootfs

// OpenTarget is openTarget.
var OpenTarget = openTarget
