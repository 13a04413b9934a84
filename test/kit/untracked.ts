/*
 * FRAGILE, and for speed alone. `node:test` follows every promise and timer with an async hook, to name the test that an
 * uncaught error belongs to. That doubles the processor time of tests that make many promises (the model: 14 s and 7.4 s),
 * and a quarter of the whole run. Loaded first (`--import`), this leaves the hook out. An uncaught error still fails its
 * file; the report names the file and not the test. A single file is run without it, and then names the test.
 *
 * Relies on `node:test` calling `createHook` of `node:async_hooks` when it is loaded. Where it does not, nothing changes but the speed.
 */
import asyncHooks, { type AsyncHook } from 'node:async_hooks'
import { syncBuiltinESMExports } from 'node:module'

const none: AsyncHook = { enable: () => none, disable: () => none }
asyncHooks.createHook = () => none
syncBuiltinESMExports()
