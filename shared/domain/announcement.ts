/*
 * A gateway as DNS records for those who look for it, and back: docs/specs/discover.md. What comes from the network is believed only as far
 * as it keeps Varve's own rules. The sockets are adapters/discovery/multicast.ts. Pure.
 */
import { machineNameMistake } from "./cluster.ts";
import { volumeNameMistake } from "./volume.ts";

export interface Announcement {
  /** Of the gateway, or of the machine. */
  readonly name: string;
  /** IPv4. */
  readonly address: string;
  readonly port: number;
  readonly version: string;
  readonly exports: readonly string[];
  /** Exports that found no room. */
  readonly more: number;
}

/** A record in the form of the DNS library, as far as it is read or written here. */
export type DnsRecord =
  | { readonly type: "PTR" | "A"; readonly name: string; readonly ttl: number; readonly data: string }
  | {
      readonly type: "SRV";
      readonly name: string;
      readonly ttl: number;
      readonly data: { readonly port: number; readonly target: string };
    }
  | { readonly type: "TXT"; readonly name: string; readonly ttl: number; readonly data: readonly string[] };

export const nbdService = "_nbd._tcp.local";
const allServices = "_services._dns-sd._udp.local";
const textBytesMax = 1200;
const labelBytesMax = 63;

const instanceOf = (name: string): string => `${name}.${nbdService}`;
const targetOf = (name: string): string => `${`varve-${name}`.slice(0, labelBytesMax)}.local`;

/** The four records, the one that is asked for first; `ttl` in seconds, 0: it goes. */
export function announcementRecords(
  { name, address, port, version, exports }: Omit<Announcement, "more">,
  ttl: number,
): readonly DnsRecord[] {
  const text = ["txtvers=1", `varve=${version}`];
  let room = textBytesMax;
  let said = 0;
  for (const one of [...exports].sort()) {
    const entry = `export=${one}`;
    room -= entry.length + 1;
    if (room < 0) break;
    text.push(entry);
    said += 1;
  }
  if (said < exports.length) text.push(`more=${exports.length - said}`);
  return [
    { type: "PTR", name: nbdService, ttl, data: instanceOf(name) },
    { type: "SRV", name: instanceOf(name), ttl, data: { port, target: targetOf(name) } },
    { type: "TXT", name: instanceOf(name), ttl, data: text },
    { type: "A", name: targetOf(name), ttl, data: address },
  ];
}

/** Whether a question is about a gateway of this name. */
export function asksFor(name: string, question: { readonly name: string; readonly type: string }): boolean {
  const asked = question.name.toLowerCase();
  const types: Readonly<Record<string, readonly string[]>> = {
    [nbdService]: ["PTR"],
    [allServices]: ["PTR"],
    [instanceOf(name)]: ["SRV", "TXT"],
    [targetOf(name)]: ["A"],
  };
  return Object.hasOwn(types, asked) && [...(types[asked] ?? []), "ANY"].includes(question.type);
}

/** What an answer to a question for all services gets beside the usual records. */
export function serviceRecord(ttl: number): DnsRecord {
  return { type: "PTR", name: allServices, ttl, data: nbdService };
}

/** The gateways of one packet; what keeps not to the rules, or is no Varve, is left out. */
export function announcementsFrom(records: readonly DnsRecord[]): readonly Announcement[] {
  return records.flatMap((record) => {
    if (record.type !== "PTR" || record.name.toLowerCase() !== nbdService || record.ttl === 0) return [];
    const name = record.data.slice(0, -nbdService.length - 1);
    if (record.data !== instanceOf(name) || machineNameMistake(name) !== null) return [];
    const service = records.find((one) => one.type === "SRV" && one.name === record.data);
    const text = records.find((one) => one.type === "TXT" && one.name === record.data);
    if (service?.type !== "SRV" || text?.type !== "TXT") return [];
    const { port, target } = service.data;
    const host = records.find((one) => one.type === "A" && one.name === target);
    if (host?.type !== "A" || !isIpv4(host.data) || !(port >= 1 && port <= 65_535)) return [];
    const valuesOf = (key: string): readonly string[] =>
      text.data.filter((entry) => entry.startsWith(`${key}=`)).map((entry) => entry.slice(key.length + 1));
    const version = valuesOf("varve")[0] ?? "";
    if (!/^[\x21-\x7e]{1,64}$/.test(version)) return [];
    const exports = valuesOf("export").filter((one) => volumeNameMistake(one) === null);
    const more = /^\d{1,4}$/.test(valuesOf("more")[0] ?? "") ? Number(valuesOf("more")[0]) : 0;
    return [{ name, address: host.data, port, version, exports, more }];
  });
}

export function isIpv4(text: string): boolean {
  const parts = text.split(".");
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255);
}
