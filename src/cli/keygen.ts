import { randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { type CommandIo, usageError } from './command.ts'

const SESSION_KEY_BYTES = 32

const USAGE = `usage: cloakroom keygen

Prints a new session key: 256 random bits, base64url.
`

/** Prints a new 256-bit session key as base64url; resolves with 0, or 1 for wrong arguments. */
export async function keygenCommand(args: string[], io: CommandIo): Promise<number> {
  try {
    const { help } = parseArgs({ args, options: { help: { type: 'boolean', short: 'h' } } }).values
    io.stdout.write(help ? USAGE : `${randomBytes(SESSION_KEY_BYTES).toString('base64url')}\n`)
    return 0
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
}
