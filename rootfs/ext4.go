package rootfs

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
)

// A disk is an ext4 file system in a sparse file, of just the parts of the format that the kernel needs (see ext4 in its
// documents), with nothing in it but the directories of an overlay: no journal, as no sandbox outlives the host, and
// checksums for what says that a group of blocks is still as it was made, so that only the first of them is written. What the
// kernel reads when it mounts the disk and makes the overlay is in one piece, its head: the host gives it room at once, it is
// read at once, and it is given back at once.
const (
	blockSize      = 4096
	groupBlocks    = 8 * blockSize // of a group: what a block of bits can tell of
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 32
	reservedInodes = 10 // the first ones, among them the root directory's
	rootInode      = 2
	upperInode     = 11
	workInode      = 12
	lastInode      = workInode // of those that an empty disk uses

	// bytesPerFile is how many bytes of a disk there is a file for, and minFiles how many there are in any case.
	bytesPerFile = 16 << 10
	minFiles     = 1024
	// dirBlocks are the root directory, upper and work.
	dirBlocks = 3
	// ownBlocks and ownFiles are what a tree takes of its disk, see mountOverlay: upper, work, work/work, work/incompat,
	// volatile in that, and dirty in that, which is empty; and for ownBlocks the root directory, too.
	ownBlocks = 6
	ownFiles  = 6
)

// The least and the most that a sandbox's disk can have, in bytes.
const (
	MinDisk = 1 << 20
	MaxDisk = 1 << 40
)

// geometry is how the blocks of a disk are laid out.
type geometry struct {
	blocks    uint32 // in all
	groups    uint32
	descs     uint32 // blocks of descriptors of groups, which follow the first
	inodes    uint32 // of a group
	inodeBlks uint32 // in which a group's inodes are
}

// layout lays out a disk that has room for size bytes.
func layout(size int64) geometry {
	data := uint32((size + blockSize - 1) / blockSize)
	files := uint32(max(minFiles, (size+bytesPerFile-1)/bytesPerFile)) + reservedInodes + ownFiles
	g := geometry{groups: 1}
	for {
		perGroup := (files + g.groups - 1) / g.groups
		g.inodeBlks = (perGroup + inodesPerBlock - 1) / inodesPerBlock
		g.inodes = g.inodeBlks * inodesPerBlock
		g.descs = (g.groups*descSize + blockSize - 1) / blockSize
		g.blocks = 1 + g.descs + ownBlocks + data + g.groups*(2+g.inodeBlks)
		g.blocks += min(g.blocks/49+1, 4096) // what the kernel keeps back for itself, a 50th of all
		groups := (g.blocks + groupBlocks - 1) / groupBlocks
		if groups <= g.groups {
			break
		}
		g.groups = groups
	}
	// With the last group the others may have come to need fewer blocks; it has to have room for its own.
	g.blocks = max(g.blocks, (g.groups-1)*groupBlocks+1+g.inodeBlks)
	return g
}

// A group says of itself which of its blocks are used, which of its inodes, and what these are. Of all groups but the first
// that stands at its beginning. In the head are the first one's, and the bits of the last one's blocks, which tell where that
// ends: the kernel reads them.

// blockBits is the block with the bits of a group's blocks.
func (g geometry) blockBits(group uint32) uint32 {
	switch group {
	case 0:
		return 1 + g.descs
	case g.groups - 1:
		return 2 + g.descs
	}
	return group * groupBlocks
}

// inodeBits is the block with the bits of a group's inodes.
func (g geometry) inodeBits(group uint32) uint32 {
	switch group {
	case 0:
		return g.blockBits(g.groups-1) + 1
	case g.groups - 1:
		return group * groupBlocks
	}
	return group*groupBlocks + 1
}

// dirs is the first of the blocks of directories.
func (g geometry) dirs() uint32 { return g.inodeBits(0) + 1 }

// table is the first block of a group's inodes.
func (g geometry) table(group uint32) uint32 {
	if group == 0 {
		return g.dirs() + dirBlocks
	}
	return g.inodeBits(group) + 1
}

// head is how many blocks the kernel reads, which are the first.
func (g geometry) head() uint32 { return g.table(0) + 1 }

// size is how many blocks a group has, and used how many of them an empty disk uses, which are its first.
func (g geometry) size(group uint32) uint32 { return min(groupBlocks, g.blocks-group*groupBlocks) }

func (g geometry) used(group uint32) uint32 { return g.table(group) + g.inodeBlks - group*groupBlocks }

// overhead is how many blocks of a disk are for what groups say of themselves, as the kernel counts them.
func (g geometry) overhead() uint32 { return 1 + g.descs + g.groups*(2+g.inodeBlks) }

// free is how many blocks an empty disk has free.
func (g geometry) free() (n uint32) {
	for group := range g.groups {
		n += g.size(group) - g.used(group)
	}
	return n
}

// makeDisk makes a disk that has room for size bytes, at a path where there is nothing, with upper and work directories for a
// root with the host's user id uid.
func makeDisk(path string, uid uint32, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g := layout(size)
	if err := f.Truncate(int64(g.blocks) * blockSize); err != nil {
		return err
	}
	var id [32]byte // one of its own, and the seed of its hashes
	_, _ = rand.Read(id[:])
	if _, err := f.WriteAt(g.content(id, uid, time.Now()), 0); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// content is a disk's head. All that follows is zero.
func (g geometry) content(id [32]byte, uid uint32, now time.Time) []byte {
	b := make([]byte, g.head()*blockSize)
	at := func(block uint32) []byte { return b[block*blockSize:][:blockSize] }
	copy(b, g.super(id))
	copy(b[blockSize:], g.descriptors(id))
	for _, group := range []uint32{0, g.groups - 1} {
		setBits(at(g.blockBits(group)), g.used(group), g.size(group))
	}
	setBits(at(g.inodeBits(0)), lastInode, g.inodes)
	for i, dir := range []struct {
		inode, uid uint32
		names      []string
	}{{rootInode, 0, []string{upperDir, workDir}}, {upperInode, uid, nil}, {workInode, 0, nil}} {
		block, links := g.dirs()+uint32(i), uint16(2+len(dir.names))
		putDir(at(block), dir.inode, rootInode, dir.names...)
		putInode(at(g.table(0))[(dir.inode-1)*inodeSize:], block, links, dir.uid, now)
	}
	return b
}

// setBits sets those of what is used, which is the first, and of what there isn't.
func setBits(b []byte, used, have uint32) {
	for i := range b {
		first := uint32(i) * 8
		if first+8 <= used || first >= have {
			b[i] = 0xFF
			continue
		}
		for bit := range uint32(8) {
			if first+bit < used || first+bit >= have {
				b[i] |= 1 << bit
			}
		}
	}
}

// super is the block that describes the file system. Numbers are little-endian, here and in all that follows.
func (g geometry) super(id [32]byte) []byte {
	const start = 1024
	b := make([]byte, start+1024)
	for at, v := range map[int]uint32{
		0x00:  g.groups * g.inodes,
		0x04:  g.blocks,
		0x0C:  g.free(),
		0x10:  g.groups*g.inodes - lastInode,
		0x18:  2, // blocks of 1024 << 2 bytes
		0x1C:  2,
		0x20:  groupBlocks,
		0x24:  groupBlocks,
		0x28:  g.inodes,
		0x4C:  1,                              // the format's revision
		0x54:  reservedInodes + 1,             // the first inode for others
		0x5C:  0x8 | 0x20 | 0x200,             // compatible: ext_attr, dir_index, sparse_super2
		0x60:  0x2 | 0x40 | 0x200,             // incompatible: filetype, extents, flex_bg
		0x64:  0x2 | 0x8 | 0x10 | 0x20 | 0x40, // for writing: large_file, huge_file, gdt_csum, dir_nlink, extra_isize
		0x160: 0x2,                            // the hash takes characters as unsigned
		0x248: g.overhead(),
	} {
		binary.LittleEndian.PutUint32(b[start+at:], v)
	}
	for at, v := range map[int]uint16{
		0x36:  0xFFFF, // no check is due after a number of mounts
		0x38:  0xEF53,
		0x3A:  1, // clean
		0x3C:  1, // go on after an error: what is damaged is the sandbox's
		0x58:  inodeSize,
		0x15C: 32, // of an inode, beyond the 128 bytes of old
		0x15E: 32,
	} {
		binary.LittleEndian.PutUint16(b[start+at:], v)
	}
	copy(b[start+0x68:], id[:16])
	copy(b[start+0xEC:], id[16:])
	b[start+0xFC] = 1  // half MD4
	b[start+0x174] = 1 // flex_bg lets the last group's bits be in the first, and counts groups by two
	return b
}

// descriptors describe the groups.
func (g geometry) descriptors(id [32]byte) []byte {
	const noInodes, noBlocks, zeroed = 1, 2, 4
	b := make([]byte, g.groups*descSize)
	for group := range g.groups {
		d := b[group*descSize:][:descSize]
		inodes, dirs, flags := g.inodes, uint16(0), uint16(noInodes|noBlocks|zeroed)
		if group == g.groups-1 { // its bits tell where it ends
			flags &^= noBlocks
		}
		if group == 0 {
			inodes, dirs, flags = inodes-lastInode, dirBlocks, zeroed
		}
		for i, block := range []uint32{g.blockBits(group), g.inodeBits(group), g.table(group)} {
			binary.LittleEndian.PutUint32(d[4*i:], block)
		}
		binary.LittleEndian.PutUint16(d[0x0C:], uint16(g.size(group)-g.used(group)))
		binary.LittleEndian.PutUint16(d[0x0E:], uint16(inodes))
		binary.LittleEndian.PutUint16(d[0x10:], dirs)
		binary.LittleEndian.PutUint16(d[0x12:], flags)
		binary.LittleEndian.PutUint16(d[0x1C:], uint16(inodes)) // never used
		sum := crc16(crc16(0xFFFF, id[:16]), binary.LittleEndian.AppendUint32(nil, group))
		binary.LittleEndian.PutUint16(d[0x1E:], crc16(sum, d[:0x1E]))
	}
	return b
}

// crc16 is the checksum of descriptors, over x^16 + x^15 + x^2 + 1.
func crc16(sum uint16, data []byte) uint16 {
	for _, c := range data {
		sum ^= uint16(c)
		for range 8 {
			carry := sum & 1
			sum >>= 1
			if carry != 0 {
				sum ^= 0xA001
			}
		}
	}
	return sum
}

// putInode describes a directory of one block.
func putInode(b []byte, block uint32, links uint16, uid uint32, now time.Time) {
	for at, v := range map[int]uint16{
		0x00: 0o40755,
		0x02: uint16(uid),
		0x18: uint16(uid), // the group
		0x1A: links,
		0x28: 0xF30A, // extents:
		0x2A: 1,      // one
		0x2C: 4,      // of at most four
		0x38: 1,      // of one block
		0x78: uint16(uid >> 16),
		0x7A: uint16(uid >> 16),
		0x80: 32, // of these bytes there are beyond the 128 of old
	} {
		binary.LittleEndian.PutUint16(b[at:], v)
	}
	seconds := uint32(now.Unix())
	more := uint32(now.Nanosecond())<<2 | uint32((now.Unix()-int64(int32(seconds)))>>32)&3
	for at, v := range map[int]uint32{
		0x04: blockSize,
		0x08: seconds, // read
		0x0C: seconds, // changed
		0x10: seconds, // written
		0x1C: blockSize / 512,
		0x20: 0x80000, // it has extents
		0x3C: block,
		0x84: more, // of when it was changed
		0x88: more,
		0x8C: more,
		0x90: seconds, // made
		0x94: more,
	} {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
}

// putDir describes what a directory has in it: itself, its parent, and directories whose inodes are those from upperInode.
func putDir(b []byte, self, parent uint32, names ...string) {
	inodes := []uint32{self, parent}
	for i := range names {
		inodes = append(inodes, upperInode+uint32(i))
	}
	at := 0
	for i, name := range append([]string{".", ".."}, names...) {
		size := 8 + (len(name)+3)&^3
		if i == len(inodes)-1 {
			size = blockSize - at
		}
		binary.LittleEndian.PutUint32(b[at:], inodes[i])
		binary.LittleEndian.PutUint16(b[at+4:], uint16(size))
		b[at+6], b[at+7] = byte(len(name)), 2 // a directory
		copy(b[at+8:], name)
		at += size
	}
}
