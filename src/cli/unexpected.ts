import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'

/**
 * Ends the process with exit code 1 at an error that no request answers for. Node would do so too, but print the error
 * with everything that it carries: commands, response bodies, tokens.
 */
export function endOnUnexpected(log: Logger): void {
  process.on('uncaughtException', (error) => {
    log.error({ err: describeError(error), reason: placeOf(error) }, 'unexpected error: the process ends')
    process.exit(1)
  })
}

/** Where it was thrown, as `file:line`. */
function placeOf(error: unknown): string | undefined {
  const { stack } = error as { stack?: unknown }
  return typeof stack === 'string'
    ? /\/((?:src|dist|node_modules)\/[\w@./-]+:\d+)/.exec(stack)?.[1]
    : undefined
}
