/*
 * The C library of this process as koffi sees it: configured before it is loaded, which koffi takes only in this order and only once, so
 * that it does not matter who binds a call first. Used by the adapters that need calls which Node does not offer.
 */
import koffi from "koffi";

// Up to 32 calls run at once (the thread pool): their argument blocks stay allocated. libc needs little stack.
koffi.config({ resident_async_pools: 32, async_stack_size: 64 * 1024, async_heap_size: 16 * 1024 });

export const library = koffi.load(null);
