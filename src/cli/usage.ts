import type { CommandIo } from './io.ts'

/** Says what is wrong with a command's arguments and how it is used; returns exit code 1. */
export function usageError(command: string, error: unknown, usage: string, io: CommandIo): number {
  const reason = error instanceof Error ? error.message.split('. ')[0] : 'wrong arguments'
  io.stderr.write(`cloakroom ${command}: ${reason}\n\n${usage}`)
  return 1
}
