/*
 * Why an address can't be listened on, in words and with a way out. services/api/layer.ts and the NBD listener's caller
 * use it; the errno says what happened.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { addressText, type ListenAddress } from "./listen-address.ts";

const reasons: Readonly<Record<string, readonly [string, string]>> = {
  EADDRINUSE: [
    "is in use by another program",
    "Stop that program (varve doctor names it), or choose another address",
  ],
  EADDRNOTAVAIL: [
    "is not an address of this machine",
    "Use 127.0.0.1, 0.0.0.0 or an address that `ip addr` shows",
  ],
  EACCES: [
    "may not be used by this user",
    "Choose a port from 1024 on, or a directory that you may write to",
  ],
  ENOENT: ["is in a directory that does not exist", "Make that directory first"],
  ENOTFOUND: ["has a host name that is not known", "Write an address instead of the name"],
};

export function listenError(flag: string, address: ListenAddress, cause: unknown): VarveError {
  const code = (cause as { code?: unknown } | null)?.code;
  const [what, hint] = reasons[String(code)] ?? [
    `can't be listened on (${String(code)})`,
    "Choose another address",
  ];
  return new VarveError("ListenError", "Invalid", `${flag} ${addressText(address)} ${what}`, {
    hint: `${hint}: ${flag} ADDR.`,
    fields: { address: addressText(address), code: String(code) },
    cause,
  });
}
