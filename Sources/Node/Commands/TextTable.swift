/// Rows of words in columns.
enum TextTable {
    /// Two blanks between columns; all rows have as many words as the first. The last word of a row is not padded.
    static func lines(_ rows: [[String]]) -> [String] {
        guard let first = rows.first else { return [] }
        let widths = first.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let padded = row.indices.dropLast().map { column in
                row[column] + String(repeating: " ", count: widths[column] - row[column].count + 2)
            }
            return padded.joined() + row[row.count - 1]
        }
    }
}
