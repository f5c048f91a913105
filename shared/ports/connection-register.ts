/*
 * Who is connected to this process over NBD. The NBD server implements it, the HTTP API shows it, and error messages about
 * attached volumes point to it.
 */

export interface ConnectionView {
  readonly id: number;
  /** Export that the client chose; null while it still negotiates. */
  readonly volume: string | null;
  /** `127.0.0.1:40312`, or `unix` for a socket file. */
  readonly peer: string;
  /** Our address that it came to. */
  readonly address: string;
  readonly openForMs: number;
  readonly requestsInFlight: number;
  readonly counters: Readonly<Record<string, number>>;
}

export interface ConnectionRegister {
  /** One view per open connection, in order of arrival. */
  connections(): readonly ConnectionView[];
  /** Sums over all connections since the start, closed ones included. */
  totals(): Readonly<Record<string, number>>;
}
