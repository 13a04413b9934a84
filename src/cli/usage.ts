import type { CommandIo } from './io.ts'

/** Says what is wrong with a command's arguments and how it is used; returns exit code 1. */
export function usageError({ error, usage }: { error: unknown; usage: string }, io: CommandIo): number {
  const command = /cloakroom \S+/.exec(usage)?.[0] ?? 'cloakroom'
  const reason = error instanceof Error ? error.message.split('. ')[0] : 'wrong arguments'
  io.stderr.write(`${command}: ${reason}\n\n${usage}`)
  return 1
}
