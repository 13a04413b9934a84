import { randomUUID } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { type DemoCall, type DemoOperation, refuseCall, sendJson } from './demo-api.ts'

type StoredFile = {
  readonly id: string
  readonly owner: string
  readonly name: string
  readonly bytes: Buffer
}

const MAX_BYTES = 20 * 1024 * 1024
const MAX_FILES = 10
/** No faster, so that a person sees the progress of an upload on his own machine. */
const BYTES_PER_MS = 8 * 1024

/** Files that persons hand in and get back, in memory: the last ten of all persons. */
export function createFiles(): readonly DemoOperation[] {
  let files: readonly StoredFile[] = []
  const shown = ({ id, name, bytes }: StoredFile) => ({ id, name, size: bytes.length })

  async function receive({ req, res, sub, received }: DemoCall): Promise<void> {
    const name = fileName(req.headers['x-file-name'])
    const chunks: Buffer[] = []
    let size = 0
    for await (const chunk of req as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > MAX_BYTES) return refuseCall(res, 413, 'a file has 20 MiB at most')
      chunks.push(chunk)
      await wait(chunk.length / BYTES_PER_MS)
    }
    const file = { id: randomUUID(), owner: sub, name, bytes: Buffer.concat(chunks) }
    files = [file, ...files].slice(0, MAX_FILES)
    sendJson(res, 201, { file: shown(file), received })
  }

  function list({ res, sub, received }: DemoCall): void {
    sendJson(res, 200, { files: files.filter(({ owner }) => owner === sub).map(shown), received })
  }

  function send({ req, res, sub }: DemoCall): void {
    const id = req.url?.split('?', 1)[0]?.split('/').at(-1)
    const file = files.find((one) => one.id === id && one.owner === sub)
    if (!file) return void refuseCall(res, 404, 'you have no such file')
    res.writeHead(200, {
      // Never a type that a browser would show or run on this origin.
      'content-type': 'application/octet-stream',
      'content-disposition': `attachment; filename*=UTF-8''${extendedValue(file.name)}`,
      'content-length': file.bytes.length,
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
    res.end(file.bytes)
  }

  return [
    { method: 'POST', path: /^\/files$/, run: receive },
    { method: 'GET', path: /^\/files$/, run: list },
    { method: 'GET', path: /^\/files\/[\w-]+$/, run: send },
  ]
}

/** The name of the file, percent-encoded, because a header has no other letters than those of ASCII. */
function fileName(header: string | string[] | undefined): string {
  try {
    const name = decodeURIComponent(String(header ?? '')).replace(/[\p{C}/\\]/gu, '')
    return [...name].slice(0, 100).join('') || 'file'
  } catch {
    return 'file'
  }
}

/** RFC 8187 §3.2.1. */
function extendedValue(text: string): string {
  return encodeURIComponent(text).replace(/['()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`)
}
