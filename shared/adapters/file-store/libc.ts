/*
 * The few C library calls that Node does not offer, bound by koffi: positioned vector IO with per-call flags, holes, slabs
 * from mmap, OFD locks. Owns the bindings, the errno names and nothing else. Called by native-file.ts, native-memory.ts,
 * ofd-lock.ts and, on its own thread, image-worker.ts. Linux on x86_64 and arm64 (the same struct layouts on both).
 * 64-bit arguments go as numbers: addresses and offsets are below 2^53.
 */
import { constants } from "node:os";
import koffi from "koffi";
import { library } from "#shared/native/library.ts";

type NativeCall<A extends readonly number[]> = ((...args: A) => number) & {
  async(...args: [...A, (error: unknown, result: number) => void]): void;
};

/** fcntl, fallocate, mmap, lseek and vector IO constants of Linux (asm-generic; x86_64 and arm64 agree). */
export const linux = {
  RWF_DSYNC: 0x2,
  RWF_NOWAIT: 0x8,
  FALLOC_KEEP_SIZE: 0x1,
  FALLOC_PUNCH_HOLE: 0x2,
  FALLOC_ZERO_RANGE: 0x10,
  SEEK_DATA: 3,
  SEEK_HOLE: 4,
  PROT_READ_WRITE: 0x3,
  MAP_PRIVATE_ANONYMOUS: 0x22,
  MADV_DONTNEED: 4,
  SYNC_FILE_RANGE_WRITE_AND_WAIT: 7,
  F_OFD_GETLK: 36,
  F_OFD_SETLK: 37,
  F_RDLCK: 0,
  F_WRLCK: 1,
  F_UNLCK: 2,
} as const;

/** errno numbers that the adapter reacts to. */
export const errno = {
  EINTR: constants.errno.EINTR,
  EAGAIN: constants.errno.EAGAIN,
  EACCES: constants.errno.EACCES,
  EINVAL: constants.errno.EINVAL,
  ENXIO: 6,
  ENOSPC: constants.errno.ENOSPC,
  EIO: constants.errno.EIO,
  EBADF: constants.errno.EBADF,
  EOPNOTSUPP: constants.errno.EOPNOTSUPP,
} as const;

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
// EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP are one number each: the first is the name that errors carry.
names.set(errno.EAGAIN, "EAGAIN");
names.set(errno.EOPNOTSUPP, "EOPNOTSUPP");

export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

function bind<A extends readonly number[]>(definition: string): NativeCall<A> {
  return library.func(definition);
}

type FdRange = [fd: number, address: number, length: number, offset: number];
type FdVector = [fd: number, vector: number, count: number, offset: number, flags: number];

export const libc = {
  pread: bind<FdRange>("int64_t pread(int fd, uintptr_t buffer, size_t length, int64_t offset)"),
  pwrite: bind<FdRange>("int64_t pwrite(int fd, uintptr_t buffer, size_t length, int64_t offset)"),
  preadv2: bind<FdVector>("int64_t preadv2(int fd, uintptr_t vector, int count, int64_t offset, int flags)"),
  pwritev2: bind<FdVector>(
    "int64_t pwritev2(int fd, uintptr_t vector, int count, int64_t offset, int flags)",
  ),
  fdatasync: bind<[fd: number]>("int fdatasync(int fd)"),
  fsync: bind<[fd: number]>("int fsync(int fd)"),
  syncFileRange: bind<[fd: number, offset: number, length: number, flags: number]>(
    "int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)",
  ),
  fallocate: bind<[fd: number, mode: number, offset: number, length: number]>(
    "int fallocate(int fd, int mode, int64_t offset, int64_t length)",
  ),
  ftruncate: bind<[fd: number, length: number]>("int ftruncate(int fd, int64_t length)"),
  lseek: bind<[fd: number, offset: number, whence: number]>(
    "int64_t lseek(int fd, int64_t offset, int whence)",
  ),
  /** Variadic in C; its third argument travels as any other on both architectures. */
  fcntl: bind<[fd: number, command: number, argument: number]>(
    "int fcntl(int fd, int command, uintptr_t argument)",
  ),
  mmap: bind<
    [address: number, length: number, protection: number, flags: number, fd: number, offset: number]
  >("int64_t mmap(uintptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)"),
  madvise: bind<[address: number, length: number, advice: number]>(
    "int madvise(uintptr_t address, size_t length, int advice)",
  ),
};

/** errno of the last call on this thread; valid right after a call and at the start of an async call's callback. */
export function lastErrno(): number {
  return koffi.errno();
}

/** JavaScript's view on native memory that stays mapped as long as the process lives. */
export function viewMemory(address: number, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length);
}
