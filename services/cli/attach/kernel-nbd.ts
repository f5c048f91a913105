/*
 * The kernel's NBD client as seen over netlink and /sys: connect, give new links or a new size, disconnect, is it in use. Turns errno
 * values into errors that say what to do. Called by attachment.ts and the commands. What the kernel does: docs/specs/attach.md.
 */
import { execFileSync } from "node:child_process";
import { closeSync, constants, existsSync, fsyncSync, openSync, writeFileSync } from "node:fs";
import { VarveError } from "#shared/domain/errors.ts";
import {
  controlAttribute,
  controlCommand,
  decodeDeviceIndex,
  decodeFamily,
  messageType,
  nbdAttribute,
  nbdNetlinkCommand,
  socketsAttribute,
  textAttribute,
  uint32Attribute,
  uint64Attribute,
} from "./netlink-message.ts";
import { eventWaitSeconds, NetlinkError, NetlinkSocket } from "./netlink-socket.ts";

const errno = { EPERM: 1, ENOENT: 2, EBUSY: 16, EINVAL: 22 } as const;
const sectorBytes = 512;

export interface DeviceWish {
  /** Null: the first that is free. */
  readonly index: number | null;
  readonly sizeBytes: number;
  readonly serverFlags: number;
  readonly timeoutSeconds: number;
  readonly deadSeconds: number;
  readonly descriptors: readonly number[];
}

export class KernelNbd {
  private readonly calls = new NetlinkSocket();
  private readonly family: number;
  private readonly group: number;

  private constructor() {
    try {
      const answers = this.calls.call("GETFAMILY", messageType.control, controlCommand.getFamily, [
        textAttribute(controlAttribute.familyName, "nbd"),
      ]);
      const found = answers[0] === undefined ? null : decodeFamily(answers[0].attributes);
      if (found === null) throw new NetlinkError("GETFAMILY", errno.ENOENT);
      this.family = found.family;
      this.group = found.group;
    } catch (cause) {
      this.calls.close();
      throw cause;
    }
  }

  /** Loads the module where it is missing. */
  static open(): KernelNbd {
    if (process.geteuid?.() !== 0) throw needsRoot();
    try {
      return new KernelNbd();
    } catch (cause) {
      if (!isErrno(cause, errno.ENOENT)) throw cause;
    }
    try {
      execFileSync("modprobe", ["nbd"], { stdio: "ignore" });
      return new KernelNbd();
    } catch (cause) {
      throw new VarveError("NoNbdModuleError", "Invalid", "this kernel has no NBD client (module nbd)", {
        hint: "modprobe nbd says why. Containers and some small kernels have none: attach on the host, or use qemu's own NBD client.",
        cause,
      });
    }
  }

  connect(wish: DeviceWish): number {
    const index = wish.index === null ? [] : [uint32Attribute(nbdAttribute.index, wish.index)];
    try {
      const answers = this.calls.call("CONNECT", this.family, nbdNetlinkCommand.connect, [
        ...index,
        uint64Attribute(nbdAttribute.sizeBytes, wish.sizeBytes),
        uint64Attribute(nbdAttribute.blockBytes, sectorBytes),
        uint64Attribute(nbdAttribute.timeoutSeconds, wish.timeoutSeconds),
        uint64Attribute(nbdAttribute.serverFlags, wish.serverFlags),
        uint64Attribute(nbdAttribute.deadConnectionSeconds, wish.deadSeconds),
        socketsAttribute(wish.descriptors),
      ]);
      const given = answers[0] === undefined ? wish.index : decodeDeviceIndex(answers[0].attributes);
      if (given === null) throw new NetlinkError("CONNECT", errno.EINVAL);
      return given;
    } catch (cause) {
      if (isErrno(cause, errno.EPERM)) throw needsRoot();
      if (isErrno(cause, errno.EBUSY)) throw deviceBusy(wish.index, cause);
      throw cause;
    }
  }

  /** New sockets in place of dead ones, and the size. */
  reconfigure(index: number, sizeBytes: number, descriptors: readonly number[]): void {
    this.calls.call("RECONFIGURE", this.family, nbdNetlinkCommand.reconfigure, [
      uint32Attribute(nbdAttribute.index, index),
      uint64Attribute(nbdAttribute.sizeBytes, sizeBytes),
      ...(descriptors.length === 0 ? [] : [socketsAttribute(descriptors)]),
    ]);
  }

  disconnect(index: number): void {
    this.calls.call("DISCONNECT", this.family, nbdNetlinkCommand.disconnect, [
      uint32Attribute(nbdAttribute.index, index),
    ]);
  }

  /** Announces each link that dies, of any device, from now on. */
  deadLinks(): DeadLinks {
    const events = new NetlinkSocket(eventWaitSeconds);
    events.join(this.group);
    return new DeadLinks(events);
  }

  close(): void {
    this.calls.close();
  }
}

export class DeadLinks {
  private readonly events: NetlinkSocket;

  constructor(events: NetlinkSocket) {
    this.events = events;
  }

  /** How many links of `index` died; 0 after a second without any. */
  async next(index: number): Promise<number> {
    const messages = await this.events.events();
    return messages.filter(
      (one) => one.command === nbdNetlinkCommand.linkDead && decodeDeviceIndex(one.attributes) === index,
    ).length;
  }

  close(): void {
    this.events.close();
  }
}

export const devicePath = (index: number): string => `/dev/nbd${index}`;

/** Whether a client, ours or another, has connected this device. */
export function isConnected(index: number): boolean {
  return existsSync(`/sys/block/nbd${index}/pid`);
}

/** Whether somebody holds the device: a mount, a swap, a volume group, another exclusive opener. */
export function isInUse(index: number): boolean {
  try {
    closeSync(openSync(devicePath(index), constants.O_RDONLY | constants.O_EXCL));
    return false;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EBUSY";
  }
}

/** What the page cache still holds for the device goes out, and a FLUSH behind it. */
export function flushDevice(index: number): void {
  const device = openSync(devicePath(index), constants.O_RDWR);
  try {
    fsyncSync(device);
  } finally {
    closeSync(device);
  }
}

/** Has udev look at the device again. */
export function announceDevice(index: number): void {
  try {
    writeFileSync(`/sys/block/nbd${index}/uevent`, "change");
  } catch {
    // Without /sys there is no udev either.
  }
}

function isErrno(cause: unknown, code: number): boolean {
  return cause instanceof NetlinkError && cause.errno === code;
}

function needsRoot(): VarveError {
  return new VarveError("NotPermittedError", "Invalid", "only root can attach disks to the kernel", {
    hint: "Use sudo, or the unit varve-attach@VOLUME.service.",
  });
}

function deviceBusy(index: number | null, cause: unknown): VarveError {
  const device = index === null ? "every NBD device" : devicePath(index);
  return new VarveError("DeviceBusyError", "Retry", `${device} is in use`, {
    hint: "Leave out --device to take a free one; varve attachments --local and lsblk show what is attached.",
    fields: { device },
    cause,
  });
}
