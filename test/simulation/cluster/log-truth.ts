/*
 * The truth of one volume's log: sees every message at the moment it is stored, keeps the fold of those that count, by a rule of its own,
 * and judges what is stored and what is purged. Knows nothing of Varve but the record's format. Owned by cluster-world.ts.
 */
import { type Batch, lastLsnOf } from "#shared/domain/batch.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import { MessageReader } from "#shared/formats/log-message.ts";
import { cellBytes, cellSerial } from "./cells.ts";
import type { ServerMessage } from "./stream-server.ts";

export interface TruthHost {
  fail(what: string): void;
  note(what: string): void;
  count(what: string): void;
  /** Of each node with a replica: the LSN that its checkpoint on the disk says. */
  checkpointLsns(): readonly { readonly node: string; readonly lsn: number }[];
}

export class LogTruth {
  readonly disk: FoldedDisk;
  readonly sizeBytes: number;
  private readonly host: TruthHost;
  private readonly reader = new MessageReader();
  /** Which process each epoch's batches came from. */
  private readonly writers = new Map<number, string>();
  private readonly writtenBy = new Map<string, { readonly epoch: number; readonly process: string }>();
  private newestEpoch = 0;
  private line = "";
  private checksum = 0n;
  private lastSequence = 0;

  constructor(sizeBytes: number, host: TruthHost) {
    this.sizeBytes = sizeBytes;
    this.disk = new FoldedDisk(sizeBytes);
    this.host = host;
  }

  get lastLsn(): number {
    return this.disk.appliedLsn;
  }

  get epoch(): number {
    return this.newestEpoch;
  }

  bytes(offset: number, length: number): Buffer {
    const bytes = this.disk.read(offset, length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, length);
  }

  serialOf(cell: number): number | string {
    return cellSerial(this.bytes(cell * cellBytes, cellBytes), cell, 0);
  }

  stored({ sequence, epoch, body }: ServerMessage, from: string): void {
    if (sequence !== this.lastSequence + 1)
      this.host.fail(`message ${sequence} follows ${this.lastSequence}`);
    this.lastSequence = sequence;
    const writer = this.writers.get(epoch) ?? from;
    this.writers.set(epoch, writer);
    if (writer !== from) this.host.fail(`${writer} and ${from} both append in epoch ${epoch}`);
    for (const item of this.reader.read(body)) {
      if ("fault" in item) {
        this.host.fail(`a message of ${from} is damaged: ${item.detail}`);
        return;
      }
      if (item.batch.epoch !== epoch)
        this.host.fail(`epoch ${item.batch.epoch} under the subject of ${epoch}`);
      this.take(item.batch, from);
    }
  }

  /** Hot log goes: every replica must have it in its checkpoint. */
  purged(messages: readonly ServerMessage[]): void {
    let lastLsn = 0;
    for (const { body } of messages) {
      for (const item of this.reader.read(body)) {
        if (!("fault" in item)) lastLsn = Math.max(lastLsn, lastLsnOf(item.batch));
      }
    }
    this.host.count("releases");
    for (const { node, lsn } of this.host.checkpointLsns()) {
      if (lsn < lastLsn) {
        this.host.fail(`log up to LSN ${lastLsn} was released, but ${node}'s checkpoint is at ${lsn}`);
      }
    }
  }

  /** Whose gateway wrote that; null: it is not known. */
  writerOf(cell: number, serial: number): { readonly epoch: number; readonly process: string } | null {
    return this.writtenBy.get(`${cell} ${serial}`) ?? null;
  }

  private noteWriter({ entries, epoch }: Batch, process: string): void {
    for (const entry of entries) {
      if (entry.kind !== "write") continue;
      for (let at = entry.offset; at < entry.offset + entry.length; at += cellBytes) {
        const cell = at / cellBytes;
        const serial = this.serialOf(cell);
        const known = this.writtenBy.has(`${cell} ${serial}`);
        if (!known) this.writtenBy.set(`${cell} ${serial}`, { epoch, process });
      }
    }
  }

  private take(batch: Batch, from: string): void {
    if (batch.epoch < this.newestEpoch) {
      this.host.note(`a batch of epoch ${batch.epoch} came behind epoch ${this.newestEpoch}`);
      this.host.count("batches of a fenced writer");
      return;
    }
    const next = this.lastLsn + 1;
    if (this.line !== "" && batch.line !== this.line) this.host.fail(`${from} appends on another line`);
    else if (batch.firstLsn !== next) this.host.fail(`${from} appends LSN ${batch.firstLsn}, not ${next}`);
    else if (batch.previousChecksum !== this.checksum) this.host.fail(`${from} appends behind another batch`);
    else if (batch.epoch > this.newestEpoch && batch.entries[0]?.kind !== "epoch") {
      this.host.fail(`epoch ${batch.epoch} begins without its entry`);
    } else {
      this.line = batch.line;
      this.newestEpoch = batch.epoch;
      this.checksum = batch.checksum;
      this.disk.applyBatch(batch);
      this.noteWriter(batch, from);
      this.host.count("batches appended");
    }
  }
}
