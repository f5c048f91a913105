/*
 * Announcements over multicast DNS: one socket that answers for one gateway, and one question on each network for all of them. Rules:
 * docs/specs/discover.md. Opened by commands of services/cli only where that was asked for. Why this library: docs/adr/001-toolchain.md.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { networkInterfaces } from "node:os";
import multicastDns, { type MulticastDNS, type QueryPacket } from "multicast-dns";
import {
  type Announcement,
  announcementRecords,
  announcementsFrom,
  asksFor,
  type DnsRecord,
  nbdService,
  serviceRecord,
} from "#shared/domain/announcement.ts";
import { VarveError } from "#shared/domain/errors.ts";

const group = "224.0.0.251";
const port = 5353;
const ttlSeconds = 120;
/** Of answers to those who do not listen to the group (RFC 6762, 6.7). */
const shortTtlSeconds = 10;
const answersPerSecondMax = 20;
const gatewaysMax = 256;
const goodbyeMs = 500;
const againMs = 1000;
const againMsMax = 60_000;

export interface AnnouncerOptions {
  /** IPv4 address of this machine: the network that hears of it. */
  readonly onAddress: string;
  /** Asked for each answer. */
  readonly announcement: () => Omit<Announcement, "more">;
  /** A line for the operator. */
  readonly onNote: (text: string) => void;
  /** For tests, which break it. */
  readonly makeSocket?: () => Socket;
}

export class Announcer {
  readonly #options: AnnouncerOptions;
  /** Null while there is none: it broke, and is opened again. */
  #dns: MulticastDNS | null = null;
  #again: NodeJS.Timeout | null = null;
  #waitMs = againMs;
  #closed = false;
  #secondMs = 0;
  #answers = 0;

  private constructor(options: AnnouncerOptions) {
    this.#options = options;
  }

  /** Rejects Invalid where the address is none of this machine's, Retry where the port can't be had. */
  static async start(options: AnnouncerOptions): Promise<Announcer> {
    requireOwn(options.onAddress);
    const announcer = new Announcer(options);
    await announcer.#open();
    return announcer;
  }

  async #open(): Promise<void> {
    const { onAddress, makeSocket = () => createSocket({ type: "udp4", reuseAddr: true }) } = this.#options;
    const socket = makeSocket();
    const dns = multicastDns({ socket, interface: onAddress, bind: group, port });
    dns.on("query", (query, from) => this.#answer(query, from));
    dns.on("warning", () => undefined); // packets of others that can't be read, and what the socket says itself
    await new Promise<void>((resolve, reject) => {
      dns.once("ready", resolve);
      const broken = (cause: Error): void => {
        reject(notHad(onAddress, cause));
        this.#broke(dns, cause);
      };
      dns.on("error", broken);
      socket.on("error", broken);
    });
    this.#dns = dns;
    this.#waitMs = againMs;
    this.#say(ttlSeconds);
  }

  /** Told once for each time that it breaks; opened again for as long as the process lives. */
  #broke(dns: MulticastDNS, cause: Error): void {
    dns.destroy();
    if (this.#dns !== dns || this.#closed) return;
    this.#dns = null;
    const { onAddress, onNote } = this.#options;
    onNote(
      `warning: mDNS on ${onAddress} broke: ${cause.message}; varve discover finds this one again when it is back`,
    );
    this.#openLater();
  }

  #openLater(): void {
    this.#again = setTimeout(() => {
      this.#open().then(
        () => {
          if (this.#closed) this.#dns?.destroy();
          else this.#options.onNote(`mDNS on ${this.#options.onAddress} is back`);
        },
        () => {
          this.#waitMs = Math.min(2 * this.#waitMs, againMsMax);
          if (!this.#closed) this.#openLater();
        },
      );
    }, this.#waitMs);
    this.#again.unref();
  }

  /** Tells that the gateway goes, as far as somebody hears it. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again ?? undefined);
    const dns = this.#dns;
    if (dns === null) return;
    await new Promise<void>((resolve) => {
      const late = setTimeout(resolve, goodbyeMs);
      this.#say(0, () => {
        clearTimeout(late);
        resolve();
      });
    });
    await new Promise<void>((resolve) => {
      dns.destroy(resolve);
    });
  }

  #say(ttl: number, done: () => void = () => undefined): void {
    this.#dns?.respond({ answers: answersOf(announcementRecords(this.#options.announcement(), ttl)) }, done);
  }

  #answer(query: QueryPacket, from: RemoteInfo): void {
    // Anybody can send that, and nobody can be answered there: dgram throws.
    if (from.port === 0) return;
    const announcement = this.#options.announcement();
    const asked = (query.questions ?? []).filter((question) => asksFor(announcement.name, question));
    if (asked.length === 0 || !this.#mayAnswer()) return;
    const plain = from.port !== port;
    const ttl = plain ? shortTtlSeconds : ttlSeconds;
    const all = asked.some(({ name }) => name.startsWith("_services.")) ? [serviceRecord(ttl)] : [];
    const answers = answersOf([...all, ...announcementRecords(announcement, ttl)]);
    if (plain) this.#dns?.respond({ id: query.id ?? 0, questions: asked, answers }, from);
    else this.#dns?.respond({ answers });
  }

  #mayAnswer(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#secondMs >= 1000) [this.#secondMs, this.#answers] = [nowMs, 0];
    this.#answers += 1;
    return this.#answers <= answersPerSecondMax;
  }
}

/** Who answers within `waitMs` on the networks of these addresses (null: all of this machine's). Sorted by name, then address. */
export async function browse(
  onAddresses: readonly string[] | null,
  waitMs: number,
): Promise<readonly Announcement[]> {
  for (const address of onAddresses ?? []) requireOwn(address);
  const found = new Map<string, Announcement>();
  const asking = await Promise.all(
    (onAddresses ?? ownAddresses()).map(async (address) => ask(address, found)),
  );
  const again = setTimeout(() => {
    for (const one of asking) one?.query(nbdService, "PTR");
  }, waitMs / 2);
  await new Promise<void>((resolve) => {
    setTimeout(resolve, waitMs);
  });
  clearTimeout(again);
  for (const one of asking) one?.destroy();
  const keyOf = ({ name, address, port }: Announcement): string => `${name} ${address}:${port}`;
  return [...found.values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

/** Null: nothing can be sent there. */
async function ask(address: string, found: Map<string, Announcement>): Promise<MulticastDNS | null> {
  const socket = createSocket("udp4");
  try {
    await bound(socket, address);
    socket.setMulticastInterface(address);
  } catch {
    socket.close();
    return null;
  }
  const dns = multicastDns({ socket, bind: false, multicast: false, port } as object);
  for (const trouble of ["error", "warning"] as const) dns.on(trouble, () => undefined);
  dns.on("response", ({ answers = [], additionals = [] }) => {
    for (const one of announcementsFrom([...answers, ...additionals].flatMap(recordOf))) {
      if (found.size < gatewaysMax) found.set(`${one.name} ${one.address}:${one.port}`, one);
    }
  });
  dns.query(nbdService, "PTR");
  return dns;
}

async function bound(socket: Socket, address: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(0, address, () => {
      socket.removeListener("error", reject);
      resolve();
    });
  });
}

type Answer = Parameters<MulticastDNS["respond"]>[0] extends infer R
  ? R extends { answers?: (infer A)[] }
    ? A
    : never
  : never;

function answersOf(records: readonly DnsRecord[]): Answer[] {
  return records.map(
    (record) => (record.type === "TXT" ? { ...record, data: [...record.data] } : record) as Answer,
  );
}

function recordOf(answer: Answer): readonly DnsRecord[] {
  const { type, name, ttl = 1 } = answer as { type: string; name: string; ttl?: number };
  const { data } = answer as { data: unknown };
  if ((type === "PTR" || type === "A") && typeof data === "string") return [{ type, name, ttl, data }];
  if (type === "SRV") {
    const { port, target } = data as { port: number; target: string };
    return [{ type, name, ttl, data: { port, target } }];
  }
  if (type !== "TXT") return [];
  const texts = Array.isArray(data) ? (data as unknown[]) : [data];
  return [{ type, name, ttl, data: texts.map(String) }];
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((ones) =>
    (ones ?? []).filter(({ family }) => family === "IPv4").map(({ address }) => address),
  );
}

function requireOwn(address: string): void {
  const own = ownAddresses();
  if (own.includes(address)) return;
  throw new VarveError("MdnsAddressError", "Invalid", `mDNS: ${address} is no IPv4 address of this machine`, {
    hint: `It has ${own.join(", ")}.`,
    fields: { address },
  });
}

function notHad(address: string, cause: Error): VarveError {
  return new VarveError("MdnsPortError", "Retry", `mDNS on ${address}: ${cause.message}`, {
    hint: "Another program holds UDP port 5353 for itself alone: end it, or leave --mdns out.",
    fields: { address },
    cause,
  });
}
