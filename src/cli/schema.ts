import { parseArgs } from 'node:util'
import { configJsonSchema } from '../config/schema/schema.ts'
import { type CommandIo, usageError } from './command.ts'

const USAGE = `usage: cloakroom schema

Prints the JSON Schema of the config file, for editors and CI.
`

/** Prints the JSON Schema of the config file; resolves with 0, or 1 for wrong arguments. */
export async function schemaCommand(args: string[], io: CommandIo): Promise<number> {
  try {
    const { help } = parseArgs({ args, options: { help: { type: 'boolean', short: 'h' } } }).values
    io.stdout.write(help ? USAGE : `${JSON.stringify(configJsonSchema(), null, 2)}\n`)
    return 0
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
}
