import { readdirSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { extname } from 'node:path'

/** A file held in memory, ready to be sent. */
export type StaticFile = { readonly contentType: string; readonly body: Buffer }

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** Reads every file of one flat directory, by name; a request can then name nothing outside it. */
export function loadStaticFiles(directory: URL): ReadonlyMap<string, StaticFile> {
  const files = new Map<string, StaticFile>()
  for (const name of readdirSync(directory)) {
    const contentType = CONTENT_TYPES[extname(name)]
    if (contentType) files.set(name, { contentType, body: readFileSync(new URL(name, directory)) })
  }
  return files
}

/** Sends a file with 200, or its headers alone for HEAD. */
export function sendStaticFile(res: ServerResponse, file: StaticFile, headers: Record<string, string>): void {
  res.writeHead(200, {
    'content-type': file.contentType,
    'content-length': file.body.length,
    'x-content-type-options': 'nosniff',
    ...headers,
  })
  res.end(res.req.method === 'HEAD' ? undefined : file.body)
}
