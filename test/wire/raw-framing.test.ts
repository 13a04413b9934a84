import { FRAMING_CASES } from './cases/framing.ts'
import { playTable } from './suite.ts'

playTable('framing', FRAMING_CASES)
