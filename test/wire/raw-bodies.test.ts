import { BODY_CASES } from './cases/bodies.ts'
import { playTable } from './suite.ts'

playTable('bodies', BODY_CASES)
