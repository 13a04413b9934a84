/*
 * FRAGILE, and for speed alone: import it first, in a file that makes very many promises or sockets and has a process of its
 * own. `node:test` follows each of them with an async hook, to name the test that an uncaught error belongs to, which doubles
 * the processor time of such files. Without the hook an uncaught error fails the file, and not the test.
 *
 * Relies on `node:test` enabling its hook at the first `test()` of a process. Where it does not, nothing changes but the speed.
 */
import { type AsyncHook, createHook } from 'node:async_hooks'

const hooks = Object.getPrototypeOf(createHook({})) as AsyncHook
const { enable } = hooks
hooks.enable = function enableNothing() {
  return this
}
// From then on hooks are what they are: the runner has asked for its own.
setImmediate(() => {
  hooks.enable = enable
})
