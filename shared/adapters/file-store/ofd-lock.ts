/*
 * Open-file-description locks (fcntl F_OFD_*): qemu's image lock bytes and a directory's lock file. Owns the struct flock
 * block and qemu's byte numbers; the descriptor that carries the lock belongs to the caller, and closing it releases.
 * Called by native-file.ts and directory-lock.ts. See docs/specs/replica.md, "Locks".
 */
import { lastErrno, libc, linux } from "./libc.ts";
import { mapSlab } from "./native-memory.ts";

/** qemu's permissions: consistent read, write, write unchanged, resize. */
const permissionCount = 4;
/** Byte 100 + n: permission n is in use. Byte 200 + n: permission n is not shared with others. */
const usedBase = 100;
const unsharedBase = 200;

// struct flock on 64-bit Linux: i16 type, i16 whence, pad, i64 start, i64 length, i32 pid, pad.
const flock = mapSlab(4096);

function fill(type: number, start: number, length: number): void {
  flock.bytes.fill(0, 0, 32);
  flock.bytes.writeInt16LE(type, 0);
  flock.bytes.writeBigInt64LE(BigInt(start), 8);
  flock.bytes.writeBigInt64LE(BigInt(length), 16);
}

/** 0, or the errno (EAGAIN where somebody else holds a conflicting lock). */
function setLock(fd: number, type: number, start: number, length: number): number {
  fill(type, start, length);
  return libc.fcntl(fd, linux.F_OFD_SETLK, flock.address) === 0 ? 0 : lastErrno();
}

/** 0 where nobody holds the byte; EAGAIN where somebody does; any other errno as it came. */
function probe(fd: number, start: number): number {
  fill(linux.F_WRLCK, start, 1);
  if (libc.fcntl(fd, linux.F_OFD_GETLK, flock.address) !== 0) return lastErrno();
  return flock.bytes.readInt16LE(0) === linux.F_UNLCK ? 0 : eagain;
}

const eagain = 11;

/**
 * As qemu does it: shared locks on all bytes of what is in use and of what is not shared, then a look whether anybody else
 * uses what is not shared here, or refuses to share what is used here. 0 or an errno; on failure nothing stays locked.
 */
export function lockImageBytes(fd: number): number {
  const failure = takeImageBytes(fd);
  if (failure !== 0) {
    setLock(fd, linux.F_UNLCK, usedBase, permissionCount);
    setLock(fd, linux.F_UNLCK, unsharedBase, permissionCount);
  }
  return failure;
}

function takeImageBytes(fd: number): number {
  for (const base of [usedBase, unsharedBase]) {
    const failure = setLock(fd, linux.F_RDLCK, base, permissionCount);
    if (failure !== 0) return failure;
  }
  for (const base of [usedBase, unsharedBase]) {
    for (let permission = 0; permission < permissionCount; permission += 1) {
      const failure = probe(fd, base + permission);
      if (failure !== 0) return failure;
    }
  }
  return 0;
}

/** Exclusive lock on the whole file: 0 or an errno (EAGAIN while another description holds it). */
export function lockWholeFile(fd: number): number {
  return setLock(fd, linux.F_WRLCK, 0, 0);
}
