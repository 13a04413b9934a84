import { connect } from 'node:net'

type Reply = string | readonly Reply[]

const END = '\r\n'

/**
 * Sends one command to a redis-server over a connection of its own, as redis-cli does, and gives the lines of the answer as
 * that prints them: a list is flattened, null is an empty line, an error is its text. A program started for each command
 * would cost more than most of the commands that are tested. Rejects when the connection ends before the answer.
 */
export async function redisCommand(
  port: number,
  args: readonly string[],
  { password, database }: { readonly password?: string; readonly database?: number } = {},
): Promise<string[]> {
  const commands = [
    ...(password === undefined ? [] : [['AUTH', password]]),
    ...(database === undefined ? [] : [['SELECT', String(database)]]),
    args,
  ]
  const socket = connect(port, '127.0.0.1')
  socket.write(commands.map(encoded).join(''))
  try {
    const replies: Reply[] = []
    let received = Buffer.alloc(0)
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer])
      for (let found = replyAt(received, 0); found; found = replyAt(received, 0)) {
        replies.push(found.reply)
        received = received.subarray(found.end)
      }
      if (replies.length === commands.length) return linesOf(replies.at(-1)!)
    }
    throw new Error(`redis-server closed the connection before it answered ${args[0]}`)
  } finally {
    socket.destroy()
  }
}

function encoded(args: readonly string[]): string {
  const parts = args.map((arg) => `$${Buffer.byteLength(arg)}${END}${arg}${END}`)
  return `*${args.length}${END}${parts.join('')}`
}

/** The reply that begins at `start`, and where it ends; undefined while it is not there whole. */
function replyAt(bytes: Buffer, start: number): { reply: Reply; end: number } | undefined {
  const lineEnd = bytes.indexOf(END, start)
  if (lineEnd < 0) return undefined
  const line = bytes.toString('utf8', start + 1, lineEnd)
  const next = lineEnd + END.length
  const kind = String.fromCharCode(bytes[start]!)
  if (kind === '$') return textAt(bytes, next, Number(line))
  if (kind === '*') return listAt(bytes, next, Number(line))
  return { reply: line, end: next }
}

function textAt(bytes: Buffer, start: number, length: number) {
  if (length < 0) return { reply: '', end: start }
  const end = start + length + END.length
  return bytes.length < end ? undefined : { reply: bytes.toString('utf8', start, start + length), end }
}

function listAt(bytes: Buffer, start: number, length: number) {
  const reply: Reply[] = []
  let end = start
  while (reply.length < length) {
    const found = replyAt(bytes, end)
    if (!found) return undefined
    reply.push(found.reply)
    end = found.end
  }
  return { reply, end }
}

function linesOf(reply: Reply): string[] {
  if (typeof reply !== 'string') return reply.flatMap(linesOf)
  return reply.split('\n').filter((line) => line !== '')
}
