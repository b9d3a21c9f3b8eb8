//go:build linux

#include "textflag.h"

// func getpid386() int32
TEXT ·getpid386(SB), NOSPLIT, $0-4
	MOVL $20, AX // getpid, as i386 numbers it
	INT  $0x80
	MOVL AX, ret+0(FP)
	RET
