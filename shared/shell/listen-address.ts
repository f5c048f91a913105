/*
 * Addresses to listen on, as users write them: HOST:PORT, [IPV6]:PORT, unix:PATH. Read by config.ts for --nbd and --http;
 * says what is beyond loopback, so that `varve up` can warn. Pure.
 */

export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** A socket path must fit sockaddr_un. */
const unixPathBytesMax = 107;

/** The address, or a sentence that says what is wrong with it. */
export function parseListenAddress(text: string): ListenAddress | string {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "") return "has no path behind unix:";
    if (Buffer.byteLength(path) > unixPathBytesMax) {
      return `has a socket path of ${Buffer.byteLength(path)} bytes; Linux takes at most ${unixPathBytesMax}`;
    }
    return { kind: "unix", path };
  }
  if (text.startsWith("/") || text.startsWith("./")) return `is a path; for a unix socket write unix:${text}`;
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s/]*)):([^:]*)$/.exec(text);
  if (match === null) {
    return /^\d+$/.test(text)
      ? `has no host; write 127.0.0.1:${text}`
      : "is neither HOST:PORT, [IPV6]:PORT nor unix:PATH";
  }
  const [, ipv6, name = "", portText = ""] = match;
  const host = ipv6 ?? name;
  if (host === "") return `has no host; write 127.0.0.1:${portText}, or 0.0.0.0:${portText} for all networks`;
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : Number.NaN;
  if (!(port >= 1 && port <= 65535)) return `has the port "${portText}"; ports are 1 to 65535`;
  return { kind: "tcp", host, port };
}

export function isLoopback(address: ListenAddress): boolean {
  if (address.kind === "unix") return true;
  const { host } = address;
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** As parseListenAddress reads it. */
export function addressText(address: ListenAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return `${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`;
}

/** NBD URI of an export on this address, as in the NBD project's URI specification. */
export function nbdUri(address: ListenAddress, exportName: string): string {
  if (address.kind === "unix") {
    return `nbd+unix:///${exportName}?socket=${encodeURI(address.path).replaceAll("?", "%3F").replaceAll("&", "%26")}`;
  }
  return `nbd://${addressText({ ...address, host: reachable(address.host) })}/${exportName}`;
}

/** Nobody connects to "all networks": show an address that works on this machine. */
function reachable(host: string): string {
  return host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
}
