/*
 * One disk in the kernel and the process that keeps it alive: gives the kernel new links when they die or when the size changes, at
 * the same gateway or at the next one. All links lead to one gateway at a time. States and times: docs/specs/attach.md. Started by
 * commands/attach.ts; speaks to the kernel by kernel-nbd.ts, to gateways by export-link.ts, to people by attachment-record.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { addressText, type ListenAddress } from "#shared/shell/listen-address.ts";
import { type AttachmentRecord, linkOf, makeLink, removeRecord, writeRecord } from "./attachment-record.ts";
import { type ExportFacts, type ExportLink, lookAtExport, openLink } from "./export-link.ts";
import {
  announceDevice,
  type DeadLinks,
  devicePath,
  flushDevice,
  isConnected,
  isInUse,
  type KernelNbd,
} from "./kernel-nbd.ts";
import { closeDescriptor, shutdownDescriptor } from "./netlink-socket.ts";

const lookEveryMs = 3_000;
const retryMs = 200;
/** For the kernel to notice that a link was shut down here. */
const noticeMs = 1_000;

export interface AttachWish {
  readonly name: string;
  readonly servers: readonly ListenAddress[];
  readonly index: number | null;
  readonly connections: number;
  readonly timeoutSeconds: number;
  readonly deadSeconds: number;
}

/** Why a volume whose answers may come before they are safe can't be attached. */
export function requireDurableWrites(name: string, facts: ExportFacts): void {
  if (facts.readOnly || !/\bdurability=flush\b/.test(facts.description)) return;
  throw new VarveError(
    "NotDurableError",
    "Invalid",
    `${name} has durability flush, which can't be attached`,
    {
      hint: `After a fail-over the kernel could not know of lost answers: varve volume set ${name} --durability write.`,
      fields: { name },
    },
  );
}

export class Attachment {
  private readonly kernel: KernelNbd;
  private readonly wish: AttachWish;
  private readonly say: (text: string) => void;
  private readonly dead: DeadLinks;
  private links: readonly number[] = [];
  private serverAt = 0;
  private record: AttachmentRecord | undefined;
  private lookedAtMs = 0;
  private detachAsked = false;
  private leaveAsked = false;

  constructor(kernel: KernelNbd, wish: AttachWish, say: (text: string) => void) {
    this.kernel = kernel;
    this.wish = wish;
    this.say = say;
    this.dead = kernel.deadLinks();
  }

  /** Connects a device. */
  async attach(): Promise<AttachmentRecord> {
    const opened = await this.openLinks();
    const { name, index, connections, timeoutSeconds, deadSeconds, servers } = this.wish;
    this.links = opened.map((link) => link.descriptor);
    const [first] = opened as [ExportLink];
    const given = this.kernel.connect({
      index,
      sizeBytes: first.sizeBytes,
      serverFlags: first.flags,
      timeoutSeconds,
      deadSeconds,
      descriptors: this.links,
    });
    return this.publish({
      name,
      index: given,
      device: devicePath(given),
      link: linkOf(name),
      state: "attached",
      server: this.serverText(),
      servers: servers.map(addressText),
      connections,
      sizeBytes: first.sizeBytes,
      readOnly: first.readOnly,
      pid: process.pid,
      failovers: 0,
    });
  }

  /** Goes on with a device whose supervisor died: its links may be alive or dead, and are all replaced. */
  async resume(record: AttachmentRecord): Promise<AttachmentRecord> {
    this.record = { ...record, pid: process.pid, servers: this.wish.servers.map(addressText) };
    const opened = await this.openLinks();
    this.give(opened);
    return this.publish({ ...this.record, state: "attached", server: this.serverText() });
  }

  /** Until the device is gone, or `leave` was asked for. */
  async supervise(): Promise<void> {
    const index = this.current().index;
    while (!this.leaveAsked) {
      const died = await this.dead.next(index);
      if (!isConnected(index)) return this.end("detached");
      if (this.detachAsked) this.tryDetach();
      else if (died > 0) await this.renew(this.links.length - died);
      else await this.lookAtSize();
    }
    this.say(`${this.current().device} stays attached to ${this.serverText()}, and nobody looks after it`);
  }

  /** Detaches as soon as nobody uses the device. */
  askDetach(): void {
    this.detachAsked = true;
  }

  askLeave(): void {
    this.leaveAsked = true;
  }

  close(): void {
    this.dead.close();
    this.dropLinks();
  }

  private tryDetach(): void {
    this.detachAsked = false;
    const record = this.current();
    if (isInUse(record.index)) {
      this.say(`${record.device} is in use and stays attached; unmount it first`);
      return;
    }
    this.publish({ ...record, state: "detaching" });
    if (!record.readOnly) flushDevice(record.index);
    this.kernel.disconnect(record.index);
  }

  private async lookAtSize(): Promise<void> {
    if (performance.now() - this.lookedAtMs < lookEveryMs) return;
    this.lookedAtMs = performance.now();
    const record = this.current();
    try {
      const { sizeBytes } = await lookAtExport(this.server(), record.name);
      if (sizeBytes === record.sizeBytes) return;
      this.say(`${record.name} has ${sizeBytes} bytes now`);
      // A link keeps the size that it was opened with: the old ones can't reach what is new.
      await this.renew(this.links.length);
    } catch (cause) {
      if (!(cause instanceof VarveError)) throw cause; // A gateway that is away is noticed by its links.
    }
  }

  /** Replaces all links. `alive` of the old ones are still to be noticed as dead by the kernel. */
  private async renew(alive: number): Promise<void> {
    const before = this.current();
    this.say(`${before.device}: links to ${before.server} are renewed`);
    this.publish({ ...before, state: "waiting" });
    for (const descriptor of this.links) shutdownDescriptor(descriptor);
    const untilMs = performance.now() + noticeMs;
    for (let left = alive; left > 0 && performance.now() < untilMs; ) {
      left -= await this.dead.next(before.index);
    }
    this.dropLinks();
    while (isConnected(before.index) && !this.leaveAsked) {
      try {
        this.give(await this.openLinks());
        break;
      } catch (cause) {
        if (!(cause instanceof VarveError)) throw cause;
        await new Promise((resolve) => setTimeout(resolve, retryMs));
      }
      if (this.detachAsked) this.tryDetach();
    }
    if (this.links.length === 0) return;
    const moved = this.serverText() === before.server ? 0 : 1;
    const record = this.current();
    this.publish({
      ...record,
      state: "attached",
      server: this.serverText(),
      failovers: record.failovers + moved,
    });
    this.say(`${before.device}: attached to ${this.serverText()}`);
  }

  private give(opened: readonly ExportLink[]): void {
    const record = this.current();
    const [first] = opened as [ExportLink];
    this.links = opened.map((link) => link.descriptor);
    // Shrinking under a mounted file system is refused by the server; whatever it says is what it serves.
    try {
      this.kernel.reconfigure(record.index, first.sizeBytes, this.links);
    } catch (cause) {
      this.dropLinks();
      throw cause;
    }
    this.record = { ...record, sizeBytes: first.sizeBytes };
  }

  /** All links to the first gateway that takes them: the present one, then the others in the order given. */
  private async openLinks(): Promise<readonly ExportLink[]> {
    const { servers, name, connections } = this.wish;
    let failure: unknown;
    for (let step = 0; step < servers.length; step += 1) {
      const at = (this.serverAt + step) % servers.length;
      const server = servers[at] as ListenAddress;
      const opened: ExportLink[] = [];
      try {
        while (opened.length < connections) opened.push(await openLink(server, name));
        requireDurableWrites(name, opened[0] as ExportLink);
        this.serverAt = at;
        return opened;
      } catch (cause) {
        for (const link of opened) closeDescriptor(link.descriptor);
        failure ??= cause;
      }
    }
    throw failure;
  }

  private dropLinks(): void {
    for (const descriptor of this.links) closeDescriptor(descriptor);
    this.links = [];
  }

  private end(what: string): void {
    const record = this.current();
    removeRecord(record);
    announceDevice(record.index);
    this.say(`${record.name}: ${record.device} is ${what}`);
  }

  private publish(record: AttachmentRecord): AttachmentRecord {
    const first = this.record?.link !== record.link || this.record.sizeBytes !== record.sizeBytes;
    this.record = record;
    writeRecord(record);
    if (first) {
      makeLink(record);
      announceDevice(record.index);
    }
    return record;
  }

  private current(): AttachmentRecord {
    if (this.record === undefined) throw new Error("nothing is attached yet");
    return this.record;
  }

  private server(): ListenAddress {
    return this.wish.servers[this.serverAt] as ListenAddress;
  }

  private serverText(): string {
    return addressText(this.server());
  }
}
