import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;

/** Asks a database one thing by pgjdbc; its URL, user and password are in the environment. */
class Query {
    public static void main(String[] arguments) throws Exception {
        Class.forName("org.postgresql.Driver");
        var here = System.getenv();
        try (Connection open = DriverManager.getConnection(here.get("URL"), here.get("USER"), here.get("PASSWORD"));
                ResultSet rows = open.createStatement().executeQuery("SELECT sum(amount) FROM sales.revenue")) {
            rows.next();
            System.out.print(rows.getLong(1));
        }
    }
}
