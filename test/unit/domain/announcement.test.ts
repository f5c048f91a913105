// Gateways as DNS records and back: what is announced is read as it was, and what keeps to nobody's rules is left out.
import { describe, expect, test } from "vitest";
import {
  announcementRecords,
  announcementsFrom,
  asksFor,
  type DnsRecord,
  nbdService,
} from "#shared/domain/announcement.ts";

const gate = {
  name: "gate-1",
  address: "192.168.1.5",
  port: 10809,
  version: "0.1.0",
  exports: ["scratch", "disk0"],
};
const records = announcementRecords(gate, 120);

describe("an announcement", () => {
  test("is read as it was made, sorted", () => {
    expect(announcementsFrom(records)).toEqual([{ ...gate, exports: ["disk0", "scratch"], more: 0 }]);
    const other = announcementRecords({ ...gate, name: "gate-2", address: "192.168.1.6", exports: [] }, 120);
    expect(announcementsFrom([...other, ...records]).map(({ name }) => name)).toEqual(["gate-2", "gate-1"]);
    expect(announcementsFrom(announcementRecords(gate, 0))).toEqual([]);
  });

  test("has room for so many names, and says how many were left out", () => {
    const exports = Array.from({ length: 200 }, (_, index) => `disk-${String(index).padStart(3, "0")}`);
    const many = announcementRecords({ ...gate, exports }, 120);
    const text = many.find(({ type }) => type === "TXT")?.data as readonly string[];
    expect(text.join(" ").length).toBeLessThan(1300);
    const [read] = announcementsFrom(many);
    expect((read?.exports.length ?? 0) + (read?.more ?? 0)).toBe(200);
    expect(read?.exports).toContain("disk-000");
  });

  test("is asked for by its own names and types only", () => {
    const asks = (name: string, type: string): boolean => asksFor("gate-1", { name, type });
    expect(asks("_NBD._tcp.local", "PTR")).toBe(true);
    expect(asks("_services._dns-sd._udp.local", "PTR")).toBe(true);
    expect(asks(`gate-1.${nbdService}`, "SRV")).toBe(true);
    expect(asks("varve-gate-1.local", "A")).toBe(true);
    expect(asks(nbdService, "ANY")).toBe(true);
    expect([asks(nbdService, "A"), asks("gate-2.local", "A"), asks("constructor", "ANY")]).toEqual([
      false,
      false,
      false,
    ]);
  });

  const changed = (type: DnsRecord["type"], change: object): DnsRecord[] =>
    records.map((record) => (record.type === type ? { ...record, ...change } : record));
  test.each([
    ["no version, so no Varve", changed("TXT", { data: ["export=disk0"] })],
    ["an address that is none", changed("A", { data: "192.168.1.500" })],
    ["a port that is none", changed("SRV", { data: { port: 0, target: "varve-gate-1.local" } })],
    ["a target without an address", changed("SRV", { data: { port: 1, target: "other.local" } })],
    ["a name with control characters", changed("PTR", { data: `a\u001b[2J.${nbdService}` })],
    ["another service", changed("PTR", { name: "_http._tcp.local" })],
    ["no more than a pointer", records.slice(0, 1)],
  ])("with %s is left out", (_title, bad) => {
    expect(announcementsFrom(bad)).toEqual([]);
  });

  test("loses names that no volume may have", () => {
    const bad = changed("TXT", {
      data: ["varve=1", "export=disk0", "export=\u001b]0;x", "export=Disk", "more=x"],
    });
    expect(announcementsFrom(bad)).toMatchObject([{ exports: ["disk0"], more: 0 }]);
  });
});
