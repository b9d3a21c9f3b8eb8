package fsapi

import "syscall"

// openDirectory has what is no directory not opened.
const openDirectory = syscall.O_DIRECTORY

// openNoFollow has a link not followed.
const openNoFollow = syscall.O_NOFOLLOW
