import { connect, type Socket } from 'node:net'

/** Opens a connection to 127.0.0.1. */
export function opened(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => {
      // An error later on is a close, too.
      socket.off('error', reject).on('error', () => undefined)
      resolve(socket)
    })
    socket.once('error', reject)
  })
}

/** Sends one request; resolves with the whole answer, head and body. Rejects when the connection ends before it. */
export function ask(socket: Socket, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = ''
    const onClose = () => reject(new Error('connection closed before its answer was complete'))
    if (socket.destroyed) return onClose()
    socket.once('close', onClose)
    socket.on('data', function onData(chunk: Buffer) {
      received += chunk.toString('latin1')
      if (received.length < lengthOf(received)) return
      socket.off('data', onData).off('close', onClose)
      resolve(received)
    })
    socket.write(request)
  })
}

/** The status code of an answer, as text. */
export const statusOf = (answer: string): string => answer.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length)

/** Length of a whole answer; infinite while its header is not here. Throws when it says no length. */
function lengthOf(received: string): number {
  const end = received.indexOf('\r\n\r\n')
  if (end === -1) return Number.POSITIVE_INFINITY
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(received.slice(0, end + 2))
  if (!length) throw new Error(`an answer without Content-Length: ${received.slice(0, end)}`)
  return end + 4 + Number(length[1])
}
